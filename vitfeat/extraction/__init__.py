"""Extraction: every image through a model once, into a store."""
