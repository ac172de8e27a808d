"""Attention rollout: what flows from the first layer's input to each token of the last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]


def rollout_row(attention: NDArray[Any], query: int = 0) -> Floats:
    r"""Multiply the attention of all layers, half of each token passing by the skip connection.

    .. math::
        \hat A_l = \mathrm{rows}\left(\tfrac12 \bar A_l + \tfrac12 I\right), \qquad
        R = \hat A_L \hat A_{L-1} \cdots \hat A_1

    with :math:`\bar A_l` the mean over heads and rows() dividing each row by its sum (Abnar &
    Zuidema 2020, "Quantifying attention flow in transformers"). Softmax rows sum to 1 already but
    for rounding; dividing keeps stored float16 attention from drifting over the layers. One row
    times each layer's matrix, the last layer first, is a fraction of the work of R.

    `attention` is (..., layer, head, query, key) after the softmax, the first layer first and none
    left out, of any float type; it is not changed, and everything is float64, one layer at a time.
    `query` is the number of the token q: 0 is the CLS token of a model that has one.

    Returns (..., key): row q of R says how token q of the last layer's output is made up of the
    tokens that the first layer was given. It sums to 1.
    """
    *lead, layers, _, tokens, _ = attention.shape
    row: Floats = np.broadcast_to(np.eye(tokens)[query], (*lead, 1, tokens))
    for layer in reversed(range(layers)):
        mean = attention[..., layer, :, :, :].mean(axis=-3, dtype=np.float64)
        if not (np.isfinite(mean).all() and (mean >= 0).all()):
            raise AnalysisError(
                f"attention of layer {layer} (of those given, from 0) has values that are negative "
                "or not finite: give attention after the softmax"
            )
        step: Floats = 0.5 * mean + 0.5 * np.eye(tokens)
        step /= step.sum(axis=-1, keepdims=True)
        row = row @ step
    return row[..., 0, :].copy()
