"""Which images an archive has, how large each is, and the windows that they are cut in."""
