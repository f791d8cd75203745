"""How right, how seamless and how fast label maps and clusters are, beside rivals."""
