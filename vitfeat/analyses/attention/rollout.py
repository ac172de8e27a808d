"""Attention rollout: what flows from the first layer's input to each token of the last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]


def rollout(attention: NDArray[Any]) -> Floats:
    r"""Multiply the attention of all layers, half of each token passing by the skip connection.

    .. math::
        \hat A_l = \mathrm{rows}\left(\tfrac12 \bar A_l + \tfrac12 I\right), \qquad
        R = \hat A_L \hat A_{L-1} \cdots \hat A_1

    with :math:`\bar A_l` the mean over heads and rows() dividing each row by its sum (Abnar &
    Zuidema 2020, "Quantifying attention flow in transformers"). Softmax rows sum to 1 already but
    for rounding; dividing keeps stored float16 attention from drifting over the layers.

    Parameters
    ----------
    attention
        (..., layer, head, query, key) after the softmax, the first layer first and none left out;
        any float type. It is not changed; everything is float64, one layer at a time.

    Returns
    -------
    NDArray
        (..., query, key): row q says how token q of the last layer's output is made up of the
        tokens that the first layer was given. Rows sum to 1.

    Raises
    ------
    AnalysisError
        Fewer than four dimensions, no layers or heads, unlike numbers of queries and keys, or
        values that are negative or not finite.
    """
    *lead, layers, tokens = _checked(attention)
    flow: Floats = np.broadcast_to(np.eye(tokens), (*lead, tokens, tokens))
    for layer in range(layers):
        flow = layer_flow(attention[..., layer, :, :, :], layer) @ flow
    return np.asarray(flow)


def rollout_row(attention: NDArray[Any], query: int) -> Floats:
    """Return one query's row of :func:`rollout`, for a fraction of the work.

    A row times each layer's matrix, the last layer first, instead of products of matrices.

    Parameters
    ----------
    attention
        As in :func:`rollout`.
    query
        Number of the token: 0 is the CLS token of a model that has one.

    Returns
    -------
    NDArray
        (..., key); sums to 1.

    Raises
    ------
    AnalysisError
        As :func:`rollout`.
    """
    *lead, layers, tokens = _checked(attention)
    row: Floats = np.broadcast_to(np.eye(tokens)[query], (*lead, 1, tokens))
    for layer in reversed(range(layers)):
        row = row @ layer_flow(attention[..., layer, :, :, :], layer)
    return row[..., 0, :].copy()


def _checked(attention: NDArray[Any]) -> tuple[int, ...]:
    """Return leading dimensions and numbers of layers and tokens, where there is a rollout."""
    if attention.ndim < 4 or attention.shape[-1] != attention.shape[-2]:
        raise AnalysisError(
            f"attention of shape {attention.shape} has no rollout: give (layer, head, query, key), "
            "as many queries as keys"
        )
    *lead, layers, heads, tokens, _ = attention.shape
    if not layers or not heads:
        raise AnalysisError("attention of no layers or heads has no rollout: give at least one")
    return *lead, layers, tokens


def layer_flow(attention: NDArray[Any], layer: int) -> Floats:
    """Return one factor of :func:`rollout`: half a layer's mean over heads, half its skip.

    Parameters
    ----------
    attention
        (..., head, query, key) after the softmax.
    layer
        For the message.

    Returns
    -------
    NDArray
        (..., query, key); rows sum to 1.

    Raises
    ------
    AnalysisError
        Values are negative or not finite.
    """
    mean = attention.mean(axis=-3, dtype=np.float64)
    if not (np.isfinite(mean).all() and (mean >= 0).all()):
        raise AnalysisError(
            f"attention of layer {layer} (of those given, from 0) has values that are negative or "
            "not finite: give attention after the softmax"
        )
    step: Floats = 0.5 * mean + 0.5 * np.eye(mean.shape[-1])
    step /= step.sum(axis=-1, keepdims=True)
    return step


def cls_rollout(row: Floats, tokens: Tokens) -> Floats:
    """Lay the CLS token's row of a rollout out on the grid.

    Parameters
    ----------
    row
        (..., key): query 0 of :func:`rollout`, or :func:`rollout_row` of it.
    tokens
        How the tokens are ordered.

    Returns
    -------
    NDArray
        (..., y, x), shares of the CLS token. They sum to less than 1: the rest is of the CLS token
        itself and of registers.

    Raises
    ------
    AnalysisError
        The model has no CLS token, or another number of tokens.
    """
    if not tokens.has_cls:
        raise AnalysisError(
            "the CLS token's rollout is asked for, and the model has none: leave it out"
        )
    if row.shape[-1] != tokens.n_tokens:
        raise AnalysisError(
            f"a rollout of shape {row.shape} is not of {tokens.n_tokens} tokens: give the grid, "
            "CLS and registers of its model"
        )
    return row[..., tokens.n_prefix :].reshape(*row.shape[:-1], *tokens.grid).copy()
