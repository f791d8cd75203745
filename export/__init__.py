"""Runtime artefacts of a model, each proved equal to PyTorch."""
