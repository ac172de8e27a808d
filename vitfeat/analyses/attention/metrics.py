r"""Attention metrics and maps of every image, layer and head, from the summaries that stores keep.

The attention itself is not needed: ``vitfeat.extraction.summary`` names what was kept of it, and
docs/analyses/attention.md has the definitions side by side. Metrics come for any leading
dimensions, written ... below: those of the summaries, usually image and layer.

With A the attention after the softmax, S the Q = gh gw spatial tokens of a grid of gh rows and gw
columns, R the registers, T all tokens, and the rows renormalised over spatial keys

.. math:: \tilde A_{hqk} = A_{hqk} / \sum_{k' \in S} A_{hqk'} \quad (k \in S)

a row with nothing on spatial keys has no such share. ``null`` says what becomes of it:

``zero``
    It counts as a row of zeros (as in the distance of the published code of Walmer et al. 2023).
``exclude``
    The mean is over the other rows (as in the offset of that code); NaN where an image and head
    has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import AttentionSummary, Floats, Null

_MAPS = 256


def offsets(grid: tuple[int, int], *, of_image: bool = False) -> tuple[Floats, Floats]:
    r"""Offsets from query to key that the aligned map runs over, in patches or in image edges.

    :math:`dy = 1 - gh, \dots, gh - 1` downwards, (2gh-1, 1), and :math:`dx = 1 - gw, \dots, gw - 1`
    to the right, (1, 2gw-1). In edges of the image they are times
    :math:`(1 / (gh - 1), 1 / (gw - 1))`: the token in row r and column c is then at
    (c / (gw - 1), r / (gh - 1)) on the unit square, as in Walmer et al. 2023. A grid of one row
    (column) has no offset along y (x), and 0 is what there is.
    """
    dy, dx = (
        np.arange(1 - n, n, dtype=np.float64) / (max(n - 1, 1) if of_image else 1) for n in grid
    )
    return dy[:, None], dx[None, :]


def metrics(
    summary: AttentionSummary,
    *,
    patch_size: int | None = None,
    null: Null = "zero",
    offset_null: Null = "exclude",
) -> dict[str, Floats]:
    r"""Return all metrics that are one number a head.

    ``distance``, ``distance_patches``, ``distance_pixels``
        :math:`\frac{1}{Q} \sum_{q \in S} \sum_{k \in S} \tilde A_{hqk} \lVert p_k - p_q \rVert_2`
        with the tokens' positions p of :func:`offsets`, in edges of the image, patches and pixels
        of the model's input (Walmer et al. 2023; Dosovitskiy et al. 2021 give it in pixels).
    ``offset_x``, ``offset_y``
        :math:`\frac{1}{Q} \sum_{q \in S} \sum_{k \in S} \tilde A_{hqk} (p_k - p_q)` in patches, to
        the right and downwards: the aligned map's centre of mass. Opposite offsets cancel. The
        published code of Walmer et al. 2023 gives its length, on the unit square, of the map
        averaged over images. Rows without spatial attention have no offset: as zero they would
        draw it towards the query itself.
    ``spatial_to_cls``, ``spatial_to_registers``
        :math:`\frac{1}{Q} \sum_{q \in S} \sum_k A_{hqk}` over k = 0, and k in R. Key 0 is the CLS
        token; the published code of Walmer et al. 2023 reads key 1, the first patch.
    ``cls_to_cls``, ``cls_to_registers``
        :math:`A_{h00}` and :math:`\sum_{k \in R} A_{h0k}`.
    ``deviation_positions``
        :math:`\frac{1}{Q} \sum_{k \in S} \mathrm{std}_{q \in S} A_{hqk}`, ddof 1 (Walmer et al.
        2023): how much attention depends on where the query is.
    ``deviation_heads``
        :math:`\frac{1}{Q^2} \sum_{q,k \in S} \mathrm{std}_h A_{hqk}`, ddof 1 (Walmer et al. 2023):
        how much the heads of a layer differ; ``deviation_heads_all`` over all T queries and keys.
    ``entropy``
        :math:`-\frac{1}{Q} \sum_{q \in S} \sum_k A_{hqk} \ln A_{hqk}` in nats.
    ``entropy_share``
        Entropy over its maximum :math:`\ln T`, which uniform attention has: models with different
        numbers of tokens compare by it.
    ``n_null``
        Spatial queries without spatial attention.

    Without `patch_size`, the edge of a patch in pixels of the model's input, there is no
    ``distance_pixels``. `null` and `offset_null` say what becomes of rows without spatial attention
    in distances and in offsets.

    Returns float64 (..., head); deviations over heads are (...). Those of tokens that the model
    does not have, and deviations of one, are absent.
    """
    tokens = summary.tokens
    dy, dx = offsets(tokens.grid)
    lengths = [np.hypot(*offsets(tokens.grid, of_image=True)), np.hypot(dy, dx)]
    # One walk over the aligned maps for all that is a function of the offset.
    means = _moments(summary, [*lengths, *np.broadcast_arrays(dx, dy)])
    image, patches = (summary.per_counted(mean, null) for mean in means[:2])
    x, y = (summary.per_counted(mean, offset_null) for mean in means[2:])
    scores = {"distance": image, "distance_patches": patches}
    if patch_size is not None:
        scores["distance_pixels"] = patches * patch_size
    scores |= {"offset_x": x, "offset_y": y}
    spatial, registers = summary["spatial_query"], tokens.registers
    if tokens.has_cls:
        prefix = summary["prefix_query"][..., 0, :]
        scores |= {"spatial_to_cls": spatial[..., 0], "cls_to_cls": prefix[..., 0]}
    if tokens.n_registers:
        scores["spatial_to_registers"] = spatial[..., registers].sum(-1, dtype=np.float64)
        if tokens.has_cls:
            scores["cls_to_registers"] = prefix[..., registers].sum(-1, dtype=np.float64)
    stored = ("deviation_positions", "deviation_heads", "deviation_heads_all", "entropy", "n_null")
    scores |= {name: summary[name] for name in stored if name in summary.arrays}
    if tokens.n_tokens > 1:
        scores["entropy_share"] = summary["entropy"].astype(np.float64) / np.log(tokens.n_tokens)
    return {name: values.astype(np.float64) for name, values in scores.items()}


def _moments(summary: AttentionSummary, functions: Sequence[Floats]) -> list[Floats]:
    """Mean over spatial queries of functions of the offset, each (..., head)."""
    aligned = summary["aligned"]
    maps = aligned.reshape(-1, prod(aligned.shape[-2:]))
    values = np.stack([f.ravel() for f in functions], axis=1)
    totals = np.empty((len(maps), len(functions)))
    # The products are float64, of a few maps at a time: their copies stay in the cache.
    for start in range(0, len(maps), _MAPS):
        rows = slice(start, start + _MAPS)
        totals[rows] = maps[rows].astype(np.float64) @ values
    means = totals.reshape(*aligned.shape[:-2], -1)
    return [means[..., i].copy() for i in range(len(functions))]


def token_maps(summary: AttentionSummary, *, null: Null = "zero") -> dict[str, NDArray[Any]]:
    r"""Attention on each token, averaged over queries (Walmer et al. 2023).

    ``all_queries``
        :math:`\frac{1}{T} \sum_q A_{hqk}`, (..., head, key).
    ``cls_query``
        :math:`A_{h0k}`, (..., head, key); absent without a CLS token.
    ``spatial_queries``
        :math:`\frac{1}{Q} \sum_{q \in S} A_{hqk}`, (..., head, key).
    ``spatial_queries_renormalised``
        :math:`\frac{1}{Q} \sum_{q \in S} \tilde A_{hqk}`, (..., head, y, x); ``null`` touches it
        alone.

    Shares of attention, keys ordered as tokens. Each sums to 1 over the keys, the last but for null
    rows that count as zero. Some are views of the summaries: not to be written to.
    """
    tokens = summary.tokens
    spatial = summary["spatial_query"]
    # Q times the mean over spatial queries is their sum.
    total = spatial * np.float64(tokens.n_spatial)
    if tokens.n_prefix:
        total += summary["prefix_query"].sum(axis=-2, dtype=np.float64)
    total /= tokens.n_tokens
    maps: dict[str, NDArray[Any]] = {"all_queries": total}
    if tokens.has_cls:
        maps["cls_query"] = summary["prefix_query"][..., 0, :]
    maps["spatial_queries"] = spatial
    renormalised = summary["spatial_query_renormalised"]
    maps["spatial_queries_renormalised"] = summary.per_counted(renormalised, null)
    return maps


def aligned_map(summary: AttentionSummary, *, null: Null = "zero") -> NDArray[Any]:
    r"""Mean over spatial queries of their maps, each moved so that its query is in the centre.

    :math:`\frac{1}{Q} \sum_{q \in S} \tilde A_{h, q, q + (dy, dx)}`, (..., head, dy, dx) with the
    :func:`offsets`, keys beyond the grid counting as zero (Walmer et al. 2023, whose code divides
    by the tokens of a batch instead and is too large by the images of a batch). A share of
    attention that sums to 1, but for null rows that count as zero. Maybe the summary itself: not to
    be written to.
    """
    return summary.per_counted(summary["aligned"], null)


def coverage(grid: tuple[int, int]) -> NDArray[np.int64]:
    r"""How many queries have a key at each offset: :math:`(gh - |dy|)(gw - |dx|)`, at least 1."""
    rows, columns = (n - np.abs(np.arange(1 - n, n)) for n in grid)
    return np.asarray(np.outer(rows, columns), dtype=np.int64)


def aligned_by_coverage(aligned: NDArray[Any]) -> Floats:
    r"""Mean attention at an offset, over the queries that have a key there, (..., dy, dx).

    .. math:: \frac{1}{c(dy, dx)} \sum_{q \in S} \tilde A_{h, q, q + (dy, dx)}

    with the :func:`coverage` c. Without it large offsets are small because few queries have them:
    uniform attention gives a pyramid, this gives 1 / Q everywhere. It does not sum to 1. Null rows
    must count as zero in `aligned`, of images or averaged over them: which offsets they would have
    covered is not kept.
    """
    rows, columns = ((n + 1) // 2 for n in aligned.shape[-2:])
    return np.asarray(aligned * (rows * columns / coverage((rows, columns))))
