"""A tile on its way: read, segmented, as a row and a table."""
