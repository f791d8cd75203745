"""In Triton: attention over a grid, norms with what lies around them, patches of bytes."""
