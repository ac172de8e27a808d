r"""Attention on high-norm tokens, and what uniform attention would give them.

With the spatial tokens :math:`S` of an image, those of them :math:`H` whose norm is above the
threshold of :func:`vitfeat.analyses.attention.norms.thresholds`, and a query's attention
:math:`a_k` in one head and layer, the share is

.. math:: s = \frac{\sum_{k \in H} a_k}{\sum_{k \in S} a_k}

and that of uniform attention :math:`|H| / |S|`. What a query gives to the CLS token and to
registers counts in neither. In an image without high-norm tokens both are 0.

References
----------
T. Darcet, M. Oquab, J. Mairal, P. Bojanowski: Vision transformers need registers. ICLR 2024,
arXiv:2309.16588.

L. Fesser, M. Jacobs, T. Fel, A. Keller, S. Kakade: A unifying view of attention sinks: two
algorithms, two solutions. arXiv:2606.08105, 2026.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.kernel import LEAST
from vitfeat.analyses.attention.norms import Rule, thresholds, token_norms
from vitfeat.errors import AnalysisError

Bool = NDArray[np.bool_]
Floats = NDArray[np.float64]


def high_norm_tokens(features: NDArray[Any], rule: Rule) -> Bool:
    """Find the spatial tokens that are high-norm among those of their image.

    `features` are (image, y, x, channel), any float type; `rule` is as in
    :func:`vitfeat.analyses.attention.norms.thresholds`.

    Returns bool (image, key), the grid row by row. A norm that equals the threshold is not above.
    """
    norms = token_norms(features)
    above = norms > thresholds(norms, rule)[:, None, None]
    return np.asarray(above.reshape(len(above), -1))


def sink_shares(attention: NDArray[Any], high: Bool) -> Floats:
    """Return the share of the attention to spatial tokens that high-norm ones get.

    `attention` is (image, head, key), of a query to the spatial tokens, from 0, of any scale;
    `high` is (image, key), from :func:`high_norm_tokens`.

    Returns float64 (image, head), from 0 to 1; NaN where a head gives nothing to spatial tokens:
    less than the smallest normal float32, as in the attention summaries.
    """
    total = attention.sum(axis=-1, dtype=np.float64)
    if not (np.isfinite(total).all() and (attention >= 0).all()):
        raise AnalysisError(
            "attention is negative or not finite: extract the model's features anew"
        )
    some = np.einsum("ihk,ik->ih", attention, high, dtype=np.float64)
    shares = np.divide(some, total, out=np.full(total.shape, np.nan), where=total >= LEAST)
    return np.asarray(shares)
