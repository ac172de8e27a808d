"""Datasets: finding images, reading them, and making the arrays that models see.

Only :mod:`~vitfeat.data.tensors` and :mod:`~vitfeat.data.loader` import torch, which takes seconds.
"""
