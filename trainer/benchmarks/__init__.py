"""Public benchmarks: official downloads in, crops that every trainer can read out."""
