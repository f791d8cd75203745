"""Numeric kernels: arrays in, arrays out. Knows no files, no models, no torch modules."""
