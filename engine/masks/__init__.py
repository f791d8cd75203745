"""From an image to masks: SAM's automatic mode, its gate, superpixel parts."""
