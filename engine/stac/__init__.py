"""STAC, the SpatioTemporal Asset Catalog: items as an archive, label maps as items."""
