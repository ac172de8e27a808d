"""Attention maps over the images that models saw."""
