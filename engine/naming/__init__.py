"""Names that people give to clusters, and what follows from them."""
