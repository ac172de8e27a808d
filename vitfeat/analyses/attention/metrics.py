r"""Attention metrics of every image, layer and head, from the summaries that stores keep.

The attention itself is not needed: ``vitfeat.extraction.summary`` names what was kept of it, and
docs/analyses/attention.md has the definitions side by side. Metrics come for any leading
dimensions, written ... below: those of the summaries, usually image and layer.

With A the attention after the softmax, S the Q = gh gw spatial tokens of a grid of gh rows and gw
columns, T all tokens, and the rows renormalised over spatial keys

.. math:: \tilde A_{hqk} = A_{hqk} / \sum_{k' \in S} A_{hqk'} \quad (k \in S)

a row with nothing on spatial keys has no such share. ``null`` says what becomes of it:

``zero``
    It counts as a row of zeros (as in the distance of the published code of Walmer et al. 2023).
``exclude``
    The mean is over the other rows (as in the offset of that code); NaN where an image and head
    has none.

Metrics of the CLS token need one, metrics of registers need registers: single functions raise
without, :func:`metrics` and :func:`token_maps` leave out what does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import AttentionSummary, Floats, Null
from vitfeat.errors import AnalysisError

Unit = Literal["image", "patches", "pixels"]
"""Of lengths: the image's edges (first to last token centre are 1 apart), tokens, input pixels."""

UNITS: tuple[Unit, ...] = ("image", "patches", "pixels")

_MAPS = 256


def offsets(
    grid: tuple[int, int], unit: Unit = "image", *, patch_size: int | None = None
) -> tuple[Floats, Floats]:
    r"""Offsets from query to key that the aligned map runs over.

    :math:`dy = 1 - gh, \dots, gh - 1` downwards and :math:`dx = 1 - gw, \dots, gw - 1` to the
    right, times (1, 1) in ``patches``, (p, p) in ``pixels`` with patch size p, and
    :math:`(1 / (gh - 1), 1 / (gw - 1))` in ``image``: the token in row r and column c is then at
    (c / (gw - 1), r / (gh - 1)) on the unit square, as in Walmer et al. 2023. A grid of one row
    (column) has no offset along y (x), and 0 is what there is.

    Parameters
    ----------
    grid
        Rows gh and columns gw.
    unit
        Out of :data:`UNITS`.
    patch_size
        Edge of a patch in pixels of the model's input; ``pixels`` needs it.

    Returns
    -------
    tuple
        dy, shape (2gh-1, 1), and dx, shape (1, 2gw-1).

    Raises
    ------
    AnalysisError
        Unknown unit, or pixels without a patch size.
    """
    if unit not in UNITS:
        raise AnalysisError(f"no unit of length is called {unit!r}: choose {', '.join(UNITS)}")
    size = 1
    if unit == "pixels":
        if patch_size is None:
            raise AnalysisError("lengths in pixels need the model's patch size: give patch_size")
        size = patch_size

    def along(n: int) -> Floats:
        steps = np.arange(1 - n, n, dtype=np.float64)
        return steps / max(n - 1, 1) if unit == "image" else steps * size

    return along(grid[0])[:, None], along(grid[1])[None, :]


def distance(
    summary: AttentionSummary,
    unit: Unit = "image",
    *,
    patch_size: int | None = None,
    null: Null = "zero",
) -> Floats:
    r"""Mean distance between query and key, weighted by attention.

    .. math:: \frac{1}{Q} \sum_{q \in S} \sum_{k \in S} \tilde A_{hqk} \lVert p_k - p_q \rVert_2

    with the tokens' positions p of :func:`offsets` (Walmer et al. 2023; Dosovitskiy et al. 2021
    give it in pixels). It is the mean length of the offsets in the aligned map.

    Parameters
    ----------
    summary
        Of some images.
    unit, patch_size
        As in :func:`offsets`.
    null
        Rows without spatial attention add nothing (``zero``) or are left out (``exclude``).

    Returns
    -------
    NDArray
        (..., head), in the unit.

    Raises
    ------
    AnalysisError
        As :func:`offsets`; unknown ``null``.
    """
    dy, dx = offsets(summary.tokens.grid, unit, patch_size=patch_size)
    return _per_counted(summary, _moments(summary, [np.hypot(dy, dx)]), null)[0]


@dataclass(frozen=True)
class Offset:
    """Mean offset from query to key.

    Attributes
    ----------
    x, y
        To the right and downwards.
    length
        Of the vector (x, y): opposite offsets cancel, unlike in :func:`distance`.
    """

    x: Floats
    y: Floats

    @property
    def length(self) -> Floats:
        """Length of the mean vector; that of mean x and y where those are means over images."""
        return np.hypot(self.x, self.y)


def offset(
    summary: AttentionSummary,
    unit: Unit = "patches",
    *,
    patch_size: int | None = None,
    null: Null = "exclude",
) -> Offset:
    r"""Mean vector from query to key, weighted by attention: the aligned map's centre of mass.

    .. math:: \frac{1}{Q} \sum_{q \in S} \sum_{k \in S} \tilde A_{hqk} (p_k - p_q)

    where rows without spatial attention are left out (``exclude``), since they have no offset; with
    ``zero`` they draw it towards the query itself. The published code of Walmer et al. 2023 gives
    the length of the former, in the unit ``image``, of the map averaged over images.

    Parameters
    ----------
    summary, unit, patch_size, null
        As in :func:`distance`.

    Returns
    -------
    Offset
        x and y (..., head), in the unit.

    Raises
    ------
    AnalysisError
        As :func:`distance`.
    """
    dy, dx = offsets(summary.tokens.grid, unit, patch_size=patch_size)
    return Offset(*_per_counted(summary, _moments(summary, np.broadcast_arrays(dx, dy)), null))


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


def _per_counted(summary: AttentionSummary, means: Sequence[Floats], null: Null) -> list[Floats]:
    """Turn means over spatial queries into means over those that count."""
    counted = summary.counted(null)
    return list(means) if counted is None else [mean / counted for mean in means]


def spatial_to_cls(summary: AttentionSummary) -> Floats:
    r"""Attention of spatial queries on the CLS token.

    :math:`\frac{1}{Q} \sum_{q \in S} A_{hq0}`, of rows that are not renormalised; (..., head), a
    share of attention. Key 0 is the CLS token; the published code of Walmer et al. 2023 reads
    key 1, the first patch.

    Raises
    ------
    AnalysisError
        The model has no CLS token.
    """
    _need_cls(summary, "attention on the CLS token")
    return _float64(summary["spatial_query"][..., 0])


def cls_to_cls(summary: AttentionSummary) -> Floats:
    r"""Attention of the CLS token on itself, :math:`A_{h00}`; (..., head), a share of attention.

    Raises
    ------
    AnalysisError
        The model has no CLS token.
    """
    _need_cls(summary, "attention of the CLS token")
    return _float64(summary["prefix_query"][..., 0, 0])


def spatial_to_registers(summary: AttentionSummary) -> Floats:
    r"""Attention of spatial queries on all registers R together.

    :math:`\frac{1}{Q} \sum_{q \in S} \sum_{k \in R} A_{hqk}`; (..., head), a share of attention.

    Raises
    ------
    AnalysisError
        The model has no registers.
    """
    _need_registers(summary)
    return _total(summary["spatial_query"][..., summary.tokens.registers])


def cls_to_registers(summary: AttentionSummary) -> Floats:
    r"""Attention of the CLS token on all registers R together.

    :math:`\sum_{k \in R} A_{h0k}`; (..., head), a share of attention.

    Raises
    ------
    AnalysisError
        The model has no CLS token or no registers.
    """
    _need_cls(summary, "attention of the CLS token")
    _need_registers(summary)
    return _total(summary["prefix_query"][..., 0, summary.tokens.registers])


def deviation_positions(summary: AttentionSummary) -> Floats:
    r"""How much attention depends on where the query is.

    :math:`\frac{1}{Q} \sum_{k \in S} \mathrm{std}_{q \in S} A_{hqk}`, ddof 1, of rows that are not
    renormalised (Walmer et al. 2023); (..., head), a share of attention.

    Raises
    ------
    AnalysisError
        The grid has a single position.
    """
    if "deviation_positions" not in summary:
        raise AnalysisError(
            "a deviation over positions needs two or more, and this grid has one: leave it out"
        )
    return _float64(summary["deviation_positions"])


def deviation_heads(summary: AttentionSummary) -> Floats:
    r"""How much the heads of a layer differ.

    :math:`\frac{1}{Q^2} \sum_{q,k \in S} \mathrm{std}_h A_{hqk}`, ddof 1, of rows that are not
    renormalised (Walmer et al. 2023); (...) without a head, a share of attention.

    Raises
    ------
    AnalysisError
        There is a single head.
    """
    if "deviation_heads" not in summary:
        raise AnalysisError(
            "a deviation over heads needs two or more, and this layer has one: leave it out"
        )
    return _float64(summary["deviation_heads"])


def entropy(summary: AttentionSummary) -> Floats:
    r"""Mean entropy of the spatial queries' rows over all keys.

    :math:`-\frac{1}{Q} \sum_{q \in S} \sum_k A_{hqk} \ln A_{hqk}`; (..., head), in nats, from 0 to
    :math:`\ln T`.
    """
    return _float64(summary["entropy"])


def entropy_share(summary: AttentionSummary) -> Floats:
    r"""Entropy over its maximum, which uniform attention has: :math:`/ \ln T`, (..., head).

    Models with different numbers of tokens compare by it.

    Raises
    ------
    AnalysisError
        There is a single token.
    """
    if summary.tokens.n_tokens < 2:
        raise AnalysisError("the entropy of attention on a single token is 0: leave its share out")
    return np.asarray(entropy(summary) / np.log(summary.tokens.n_tokens))


def metrics(
    summary: AttentionSummary,
    *,
    patch_size: int | None = None,
    null: Null = "zero",
    offset_null: Null = "exclude",
) -> dict[str, Floats]:
    """Return all metrics that are one number a head.

    Parameters
    ----------
    summary
        Of some images.
    patch_size
        Edge of a patch in pixels of the model's input; without it no length is in pixels.
    null, offset_null
        As in :func:`distance` and in :func:`offset`.

    Returns
    -------
    dict
        ``distance`` (unit square), ``distance_patches``, ``distance_pixels``, ``offset_x`` and
        ``offset_y`` (patches), ``spatial_to_cls``, ``cls_to_cls``, ``spatial_to_registers``,
        ``cls_to_registers``, ``deviation_positions``, ``entropy``, ``entropy_share``, ``n_null``
        (queries), each float64 (..., head), and ``deviation_heads`` (...) with
        ``deviation_heads_all``, which is the same over all T queries and keys. Those of tokens that
        the model does not have, and deviations of one, are absent.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
    """
    tokens = summary.tokens
    dy, dx = offsets(tokens.grid, "patches")
    lengths = [np.hypot(*offsets(tokens.grid, "image")), np.hypot(dy, dx)]
    # One walk over the aligned maps for all that is a function of the offset.
    image, patches, x, y = _moments(summary, [*lengths, *np.broadcast_arrays(dx, dy)])
    image, patches = _per_counted(summary, (image, patches), null)
    x, y = _per_counted(summary, (x, y), offset_null)
    found = {"distance": image, "distance_patches": patches}
    if patch_size is not None:
        found["distance_pixels"] = patches * patch_size
    found |= {"offset_x": x, "offset_y": y}
    if tokens.has_cls:
        found |= {"spatial_to_cls": spatial_to_cls(summary), "cls_to_cls": cls_to_cls(summary)}
    if tokens.n_registers:
        found["spatial_to_registers"] = spatial_to_registers(summary)
    if tokens.n_registers and tokens.has_cls:
        found["cls_to_registers"] = cls_to_registers(summary)
    for name in (
        "deviation_positions",
        "deviation_heads",
        "deviation_heads_all",
        "entropy",
        "n_null",
    ):
        if name in summary:
            found[name] = _float64(summary[name])
    if tokens.n_tokens > 1:
        found["entropy_share"] = entropy_share(summary)
    return found


def _need_cls(summary: AttentionSummary, what: str) -> None:
    if not summary.tokens.has_cls:
        raise AnalysisError(f"{what} is asked for, and the model has none: leave it out")


def _need_registers(summary: AttentionSummary) -> None:
    if not summary.tokens.n_registers:
        raise AnalysisError(
            "attention on registers is asked for, and the model has none: leave it out"
        )


def _float64(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)


def _total(values: NDArray[Any]) -> Floats:
    return np.asarray(values.sum(axis=-1, dtype=np.float64))
