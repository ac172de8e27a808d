r"""Attention metrics of every image, layer and head, from the summaries that stores keep.

The attention itself is not needed: ``vitfeat.extract.summary`` names what was kept of it, and
docs/methods.md has the definitions side by side. Metrics come for any leading dimensions, written
... below: those of the summaries, usually image and layer.

With A the attention after the softmax, S the Q = gh gw spatial tokens of a grid of gh rows and gw
columns, T all tokens, and the rows renormalised over spatial keys

.. math:: \tilde A_{hqk} = A_{hqk} / \sum_{k' \in S} A_{hqk'} \quad (k \in S)

a row with nothing on spatial keys has no such share. ``null`` says what becomes of it:

``zero``
    It counts as a row of zeros (as in the published code of Walmer et al. 2023).
``exclude``
    The mean is over the other rows; NaN where an image and head has none.

Metrics of the CLS token need one, metrics of registers need registers: single functions raise
without, :func:`metrics` and :func:`token_maps` leave out what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]

Unit = Literal["image", "patches", "pixels"]
"""Of lengths: the image's edges (first to last token centre are 1 apart), tokens, input pixels."""

UNITS: tuple[Unit, ...] = ("image", "patches", "pixels")

Null = Literal["zero", "exclude"]

NULLS: tuple[Null, ...] = ("zero", "exclude")


@dataclass(frozen=True)
class Tokens:
    """How a model's tokens are ordered: CLS, registers, then the grid row by row.

    Attributes
    ----------
    grid
        Rows gh and columns gw of the token grid.
    has_cls
        Whether there is a CLS token.
    n_registers
        Number of register tokens.
    """

    grid: tuple[int, int]
    has_cls: bool = True
    n_registers: int = 0

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the grid."""
        return int(self.has_cls) + self.n_registers

    @property
    def n_spatial(self) -> int:
        """Number Q of tokens of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def n_tokens(self) -> int:
        """Number T of all tokens."""
        return self.n_prefix + self.n_spatial

    @property
    def registers(self) -> slice:
        """Where the registers stand among all tokens."""
        return slice(int(self.has_cls), self.n_prefix)


class AttentionSummary:
    """The summaries of some attention, with their shapes and values checked.

    Parameters
    ----------
    arrays
        By name, as the array group ``attention_summary`` of a store and
        ``vitfeat.extract.summary.summarise`` give them: ``spatial_query`` (..., head, key),
        ``spatial_query_renormalised`` (..., head, y, x), ``aligned`` (..., head, dy, dx),
        ``n_null`` and ``entropy`` (..., head); ``prefix_query`` (..., head, prefix, key) where
        there are prefix tokens, ``deviation_positions`` (..., head) of more than one position,
        ``deviation_heads`` (...) of more than one head. They are not copied and never changed;
        others are ignored.
    tokens
        How the tokens are ordered.

    Raises
    ------
    AnalysisError
        An array is absent, of another shape, or holds values that are not finite.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], tokens: Tokens) -> None:
        if "entropy" not in arrays or not np.ndim(arrays["entropy"]):
            raise AnalysisError(
                "attention summaries lack 'entropy' (..., head): give all summaries of a store"
            )
        *lead, heads = arrays["entropy"].shape
        rows, columns = tokens.grid
        shapes: dict[str, tuple[int, ...]] = {
            "spatial_query": (heads, tokens.n_tokens),
            "spatial_query_renormalised": (heads, rows, columns),
            "aligned": (heads, 2 * rows - 1, 2 * columns - 1),
            "n_null": (heads,),
            "entropy": (heads,),
        }
        if tokens.n_prefix:
            shapes["prefix_query"] = (heads, tokens.n_prefix, tokens.n_tokens)
        if tokens.n_spatial > 1:
            shapes["deviation_positions"] = (heads,)
        if heads > 1:
            shapes["deviation_heads"] = ()
        for name, shape in shapes.items():
            if name not in arrays:
                raise AnalysisError(
                    f"attention summaries lack {name!r}: give all summaries of a store"
                )
            if arrays[name].shape != (*lead, *shape):
                raise AnalysisError(
                    f"attention summary {name!r} has shape {arrays[name].shape}, expected "
                    f"{(*lead, *shape)}: give the grid, CLS and registers of its model"
                )
            # The sum is finite only if all are: they are shares, deviations and counts.
            if not np.isfinite(arrays[name].sum()):
                raise AnalysisError(
                    f"attention summary {name!r} holds values that are not finite: extract the "
                    "model's features anew"
                )
        self.arrays = {name: arrays[name] for name in shapes}
        self.tokens = tokens

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array by name."""
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is such an array."""
        return name in self.arrays

    def counted(self, null: Null) -> Floats | None:
        """Share of spatial queries whose rows count, (..., head), NaN for 0; None: all of them.

        Raises
        ------
        AnalysisError
            Unknown ``null``.
        """
        if null not in NULLS:
            raise AnalysisError(f"null rows cannot be {null!r}: choose {', '.join(NULLS)}")
        if null == "zero":
            return None
        share = 1 - self["n_null"].astype(np.float64) / self.tokens.n_spatial
        return np.where(share > 0, share, np.nan)


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
    return _moment(summary, np.hypot(dy, dx), null)


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
    null: Null = "zero",
) -> Offset:
    r"""Mean vector from query to key, weighted by attention.

    .. math:: \frac{1}{Q} \sum_{q \in S} \sum_{k \in S} \tilde A_{hqk} (p_k - p_q)

    The published code of Walmer et al. 2023 gives its length, in the unit ``image``, of the map
    averaged over images.

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
    shape = np.broadcast_shapes(dy.shape, dx.shape)
    x, y = (_moment(summary, np.broadcast_to(d, shape), null) for d in (dx, dy))
    return Offset(x, y)


def _moment(summary: AttentionSummary, values: Floats, null: Null) -> Floats:
    """Mean over counted queries of a function of the offset, (..., head)."""
    counted = summary.counted(null)
    aligned = summary["aligned"]
    # Not BLAS: it would copy all of the map into float64 first.
    total = np.einsum(
        "...k,k->...", aligned.reshape(*aligned.shape[:-2], -1), values.ravel(), dtype=np.float64
    )
    return np.asarray(total if counted is None else total / counted)


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

    :math:`\frac{1}{T^2} \sum_{q,k} \mathrm{std}_h A_{hqk}`, ddof 1, over all tokens, of rows that
    are not renormalised (Walmer et al. 2023); (...) without a head, a share of attention.

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


def metrics(
    summary: AttentionSummary, *, patch_size: int | None = None, null: Null = "zero"
) -> dict[str, Floats]:
    """Return all metrics that are one number a head.

    Parameters
    ----------
    summary
        Of some images.
    patch_size
        Edge of a patch in pixels of the model's input; without it no length is in pixels.
    null
        As in :func:`distance`.

    Returns
    -------
    dict
        ``distance`` (unit square), ``distance_patches``, ``distance_pixels``, ``offset_x`` and
        ``offset_y`` (patches), ``spatial_to_cls``, ``cls_to_cls``, ``spatial_to_registers``,
        ``cls_to_registers``, ``deviation_positions``, ``entropy``, ``n_null`` (queries), each
        float64 (..., head), and ``deviation_heads`` (...). Those of tokens that the model does not
        have, and deviations of one, are absent.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
    """
    tokens = summary.tokens
    patches = distance(summary, "patches", null=null)
    mean = offset(summary, "patches", null=null)
    found = {"distance": distance(summary, null=null), "distance_patches": patches}
    if patch_size is not None:
        found["distance_pixels"] = patches * patch_size
    found |= {"offset_x": mean.x, "offset_y": mean.y}
    if tokens.has_cls:
        found |= {"spatial_to_cls": spatial_to_cls(summary), "cls_to_cls": cls_to_cls(summary)}
    if tokens.n_registers:
        found["spatial_to_registers"] = spatial_to_registers(summary)
    if tokens.n_registers and tokens.has_cls:
        found["cls_to_registers"] = cls_to_registers(summary)
    for name in ("deviation_positions", "deviation_heads", "entropy", "n_null"):
        if name in summary:
            found[name] = _float64(summary[name])
    return found


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
        As in :func:`distance`; it touches ``spatial_queries_renormalised`` alone.

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
    found["spatial_queries_renormalised"] = _per_counted(
        summary, "spatial_query_renormalised", null
    )
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
        As in :func:`distance`.

    Returns
    -------
    NDArray
        (..., head, dy, dx) of 2gh-1 rows and 2gw-1 columns, offsets as in :func:`offsets`; a share
        of attention that sums to 1, but for null rows that count as zero. Maybe the summary
        itself: not to be written to.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
    """
    return _per_counted(summary, "aligned", null)


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


def _per_counted(summary: AttentionSummary, name: str, null: Null) -> NDArray[Any]:
    counted = summary.counted(null)
    return summary[name] if counted is None else summary[name] / counted[..., None, None]


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
