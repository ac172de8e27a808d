"""Figures of one model's attention, averaged over images."""
