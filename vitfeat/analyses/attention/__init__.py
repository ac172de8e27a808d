"""Attention metrics, and maps averaged over images."""
