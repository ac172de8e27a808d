"""Figures from tables: one module per kind of figure, one style for all."""
