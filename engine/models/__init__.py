"""From a name to weights: the shipped model, downloads, checkpoints of every layout."""
