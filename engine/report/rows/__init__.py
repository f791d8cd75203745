"""What the tables of a run say, and which of their rows the page shows."""
