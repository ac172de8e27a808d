"""Figures of the tasks: across models, and pictures of single models."""
