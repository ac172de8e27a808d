"""Attention: summaries, metrics and maps of them, and of single images."""
