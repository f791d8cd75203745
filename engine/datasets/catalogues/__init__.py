"""Label maps as entries of catalogues."""
