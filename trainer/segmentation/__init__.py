"""Segmentation models: built, taught, saved as transformers opens them, and measured."""
