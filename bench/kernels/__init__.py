"""Each kernel beside what it replaces: `make bench`."""
