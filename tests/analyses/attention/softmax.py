"""Attention of random numbers."""

from __future__ import annotations

import numpy as np

from vitfeat.analyses.attention.summary import Tokens


def attention(*shape: int, tokens: Tokens, seed: int = 0) -> np.ndarray:
    """Softmax rows of random numbers."""
    logits = np.random.default_rng(seed).normal(size=(*shape, tokens.n_tokens, tokens.n_tokens))
    weights = np.exp(2 * logits)
    return weights / weights.sum(-1, keepdims=True)
