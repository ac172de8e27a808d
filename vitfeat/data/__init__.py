"""Datasets: which images, from file to tensor; only :mod:`~vitfeat.data.loader` imports torch."""
