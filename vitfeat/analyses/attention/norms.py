"""High-norm tokens: the artefacts of large Vision Transformers that registers remove.

Darcet et al. 2024, "Vision transformers need registers": some spatial tokens, mostly of plain
background, have outputs of about ten times the norm of the others and hold information about the
image as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]

Rule = Literal["absolute", "median", "mad"]

PARAMETER: Mapping[Rule, float] = MappingProxyType({"absolute": 150.0, "median": 3.0, "mad": 10.0})
"""The rules by name, with the parameter k of each; see :func:`thresholds`."""

_TOKENS = 64

MAD_TO_SIGMA = 1.482602218505602
"""A normal variable's standard deviation over its median absolute deviation."""


def token_norms(features: NDArray[Any]) -> Floats:
    r"""L2 norms of tokens, :math:`\sqrt{\sum_c x_c^2}`.

    Features are (..., channel) of any float type: squares are float64, since those of float16
    features overflow at norms that occur.

    Returns (...), in the features' unit.
    """
    tokens = features.reshape(-1, features.shape[-1])
    squares = np.empty(len(tokens))
    # A few tokens at a time: their float64 copies stay in the cache.
    for start in range(0, len(tokens), _TOKENS):
        some = tokens[start : start + _TOKENS].astype(np.float64)
        squares[start : start + _TOKENS] = np.einsum("tc,tc->t", some, some)
    norms = np.sqrt(squares.reshape(features.shape[:-1]))
    if not np.isfinite(norms).all():
        raise AnalysisError(
            "features hold values that are not finite, so that tokens have no norm: extract them "
            "anew, as float32"
        )
    return np.asarray(norms)


def thresholds(norms: Floats, rule: Rule) -> Floats:
    r"""Norm above which a spatial token is high-norm, for each image.

    ============ =============================================== ============
    rule         threshold                                       k
    ============ =============================================== ============
    ``absolute`` :math:`k`                                       150
    ``median``   :math:`k \, \mathrm{med}`                       3
    ``mad``      :math:`\mathrm{med} + k \cdot 1.4826 \,         10
                 \mathrm{med} |n - \mathrm{med}|`
    ============ =============================================== ============

    with norms n and their median over the image's spatial tokens. ``absolute`` is the criterion of
    Darcet et al. 2024: 150, in the valley of the two-peaked distribution of DINOv2 ViT-g/14's
    output norms. They picked it by hand and say that it varies with the model, so it means nothing
    for models whose features are scaled otherwise. ``median`` and ``mad`` do not change when all
    features are scaled, and hold while under half of the tokens are high-norm. 3 is the geometric
    middle of an ordinary token and one of ten times its norm. ``mad`` says how far a token is from
    the rest in deviations of the rest (1.4826 makes it the standard deviation of normal norms): it
    also finds small outliers of a model whose norms are all alike. Both k are our choice.

    Norms are (..., y, x) of spatial tokens, thresholds (...) in their unit.
    """
    k = PARAMETER[rule]
    if rule == "absolute":
        return np.full(norms.shape[:-2], k)
    median = np.median(norms, axis=(-2, -1), keepdims=True)
    if rule == "median":
        return np.asarray(k * median[..., 0, 0])
    spread = np.median(np.abs(norms - median), axis=(-2, -1))
    return np.asarray(median[..., 0, 0] + k * MAD_TO_SIGMA * spread)


def high_norm(norms: Floats, rule: Rule) -> Floats:
    r"""Share of an image's spatial tokens that are high-norm, (...) from 0 to 1.

    :math:`\frac{1}{Q} |\{q \in S : n_q > t\}|` with the threshold t of :func:`thresholds`; a norm
    that equals it is not above.
    """
    above = norms > thresholds(norms, rule)[..., None, None]
    return np.asarray(above.mean(axis=(-2, -1)))
