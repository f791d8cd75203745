"""Images and their labels: found, checked, decoded once, and drawn as augmented crops."""
