"""Attacks on an archive and its run folder: kills, damage, noise, hostile values."""
