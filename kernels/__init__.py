"""Numeric kernels: arrays in, arrays out. Knows no files, no models, no torch modules."""

from alps.kernels.base.cache import provide_cache

provide_cache()
