"""SAM's mask decoder and encoder attention on the CPU."""
