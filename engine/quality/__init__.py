"""Label maps against real labels."""
