"""What a GPU computes of SAM's image encoder beside its matrix products."""
