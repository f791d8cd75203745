"""A GPU's work, counted and predicted without one, and checked in a few minutes of one."""
