"""Figures of how alike models are."""
