"""Tiles in, label maps out: everything mode, clustering, painting, the run folder."""
