"""Everything mode beside the original: speed, memory, masks in common."""
