"""What SAM's image encoder computes beside its matrix products."""
