"""From masks of windows to regions of a scene: what is classed and painted, without seams."""
