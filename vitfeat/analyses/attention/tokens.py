"""Attention on each token, and on each offset from the query: maps of images from the summaries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import AttentionSummary, Floats, Null


def token_maps(summary: AttentionSummary, *, null: Null = "zero") -> dict[str, NDArray[Any]]:
    r"""Attention on each token, averaged over queries (Walmer et al. 2023).

    ``all_queries``
        :math:`\frac{1}{T} \sum_q A_{hqk}`, (..., head, key).
    ``cls_query``
        :math:`A_{h0k}`, (..., head, key).
    ``spatial_queries``
        :math:`\frac{1}{Q} \sum_{q \in S} A_{hqk}`, (..., head, key).
    ``spatial_queries_renormalised``
        :math:`\frac{1}{Q} \sum_{q \in S} \tilde A_{hqk}`, (..., head, y, x).

    Parameters
    ----------
    summary
        Of some images.
    null
        As in :meth:`AttentionSummary.counted`; it touches ``spatial_queries_renormalised`` alone.

    Returns
    -------
    dict
        Shares of attention, keys ordered as tokens. Each sums to 1 over the keys, the last but for
        null rows that count as zero. ``cls_query`` is absent without a CLS token. Some are views
        of the summaries: not to be written to.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
    """
    tokens = summary.tokens
    spatial = summary["spatial_query"]
    # Q times the mean over spatial queries is their sum.
    total = spatial * np.float64(tokens.n_spatial)
    found: dict[str, NDArray[Any]] = {}
    if tokens.n_prefix:
        total += summary["prefix_query"].sum(axis=-2, dtype=np.float64)
    total /= tokens.n_tokens
    found["all_queries"] = total
    if tokens.has_cls:
        found["cls_query"] = summary["prefix_query"][..., 0, :]
    found["spatial_queries"] = spatial
    found["spatial_queries_renormalised"] = summary.per_counted("spatial_query_renormalised", null)
    return found


def aligned_map(summary: AttentionSummary, *, null: Null = "zero") -> NDArray[Any]:
    r"""Mean over spatial queries of their maps, each moved so that its query is in the centre.

    :math:`\frac{1}{Q} \sum_{q \in S} \tilde A_{h, q, q + (dy, dx)}`, keys beyond the grid counting
    as zero (Walmer et al. 2023, whose code divides by the tokens of a batch instead and is too
    large by the images of a batch).

    Parameters
    ----------
    summary
        Of some images.
    null
        As in :meth:`AttentionSummary.counted`.

    Returns
    -------
    NDArray
        (..., head, dy, dx) of 2gh-1 rows and 2gw-1 columns, offsets as in
        :func:`~vitfeat.analyses.attention.metrics.offsets`; a share
        of attention that sums to 1, but for null rows that count as zero. Maybe the summary
        itself: not to be written to.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
    """
    return summary.per_counted("aligned", null)


def coverage(grid: tuple[int, int]) -> NDArray[np.int64]:
    r"""How many queries have a key at each offset: :math:`(gh - |dy|)(gw - |dx|)`.

    Parameters
    ----------
    grid
        Rows gh and columns gw.

    Returns
    -------
    NDArray
        (2gh-1, 2gw-1), at least 1.
    """
    rows, columns = (n - np.abs(np.arange(1 - n, n)) for n in grid)
    return np.asarray(np.outer(rows, columns), dtype=np.int64)


def aligned_by_coverage(aligned: NDArray[Any]) -> Floats:
    r"""Mean attention at an offset, over the queries that have a key there.

    .. math:: \frac{1}{c(dy, dx)} \sum_{q \in S} \tilde A_{h, q, q + (dy, dx)}

    with the :func:`coverage` c. Without it large offsets are small because few queries have them:
    uniform attention gives a pyramid, this gives 1 / Q everywhere. Null rows count as zero: which
    offsets they would have covered is not kept.

    Parameters
    ----------
    aligned
        (..., dy, dx), with null rows as zero: of images, or averaged over them.

    Returns
    -------
    NDArray
        (..., dy, dx), a share of attention; it does not sum to 1.
    """
    rows, columns = ((n + 1) // 2 for n in aligned.shape[-2:])
    return np.asarray(aligned * (rows * columns / coverage((rows, columns))))
