"""What the shipped model finds."""
