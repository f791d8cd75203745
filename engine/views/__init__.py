"""A run folder that is there, opened to be looked at from Python."""
