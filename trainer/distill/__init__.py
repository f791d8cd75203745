"""A smaller SAM for one's own archive: its encoder learns a larger one's image embeddings."""
