"""The arrays that each tap is stored in: names, dimensions, shapes, element types."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

#: Subgroup of the attention summaries.
SUMMARY_GROUP = "attention_summary"

#: What a block gets, and what it adds to it: taps with a subgroup each, of all kinds of tokens.
RESIDUAL_TAPS = ("block_input", "attn_branch", "mlp_branch")

#: Subgroup of the norms of tokens along the residual connections.
NORMS_GROUP = "residual_norms"

#: Subgroup of the model's final norm, which tokens are stored without.
FINAL_NORM_GROUP = "final_norm"

_TOKENS_OF = {
    "block_input": "what each block gets, the skip of its attention",
    "attn_branch": "what attention adds to its skip",
    "mlp_branch": "what the MLP adds to its skip",
}

_NORMS = {
    "attn_skip": "what each block gets",
    "attn_branch": "what attention adds to it",
    "mlp_skip": "their sum, which the MLP adds to",
    "mlp_branch": "what the MLP adds",
}


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model's tensors: all that the layout must know of it.

    Attributes
    ----------
    layers
        Numbers of the stored layers, counted from 0.
    width, heads
        Channels of a token; attention heads of a layer.
    grid
        Rows and columns of the token grid.
    has_cls, n_registers
        The tokens that stand before the grid.
    has_branches
        Whether blocks add attention and MLP to skips of their own.
    ragged
        Whether the images have grids of their own; `grid` is then the model's usual one.
    """

    layers: tuple[int, ...]
    width: int
    heads: int
    grid: tuple[int, int]
    has_cls: bool
    n_registers: int
    has_branches: bool = True
    ragged: bool = False

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the grid."""
        return int(self.has_cls) + self.n_registers

    @property
    def n_tokens(self) -> int:
        """Number of all tokens of an image."""
        return self.n_prefix + prod(self.grid)


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: its first dimension counts images, or entries that images have.

    Attributes
    ----------
    name
        Path inside the group.
    dims
        Dimension names: first ``image``, or another where images have no or several entries.
    shape
        Shape of one entry: everything but the first dimension.
    dtype
        NumPy's name of the element type.
    tap
        The tap that it belongs to.
    description
        One sentence for the array's attributes.
    starts
        Where the entries of each image start, and behind them their number; entries stand in the
        order of the images. None for one entry an image.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    tap: str
    description: str
    starts: tuple[int, ...] | None = None

    @property
    def bytes_per_entry(self) -> int:
        """Uncompressed bytes of one entry: of an image, of most arrays."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def has_layers(self) -> bool:
        """Whether the second dimension is ``layer``."""
        return len(self.dims) > 1 and self.dims[1] == "layer"

    @property
    def rows(self) -> tuple[int, ...] | None:
        """The row of the store that each entry is of; None for one entry an image."""
        if self.starts is None:
            return None
        counts = np.diff(np.asarray(self.starts))
        return tuple(np.repeat(np.arange(len(counts)), counts).tolist())

    def row_of(self, entry: int) -> int:
        """Return the row of the store that an entry is of."""
        return entry if self.starts is None else bisect_right(self.starts, entry) - 1


def starts_of(rows: Sequence[int], n_images: int) -> tuple[int, ...]:
    """Return where the entries of each image start among entries of ascending rows."""
    return tuple(np.searchsorted(rows, np.arange(n_images + 1)).tolist())


def group_of(name: str) -> str:
    """Return the subgroup that an array stands in, ``""`` for the store's own."""
    return name.rpartition("/")[0]


def rows_name(name: str, dim: str) -> str:
    """Return the coordinate that says which rows an array's entries are of.

    It stands beside the array: ``region_image`` of regions; ``token_start`` of the tokens of grids
    of different sizes, which says where those of each image start; and of arrays of some images
    ``{tap}_image``, named as the dimension that it labels.

    Parameters
    ----------
    name, dim
        The array, and its first dimension.
    """
    own = {"region": "region_image", "token": "token_start"}.get(dim, dim)
    group = group_of(name)
    return f"{group}/{own}" if group else own


def arrays_of(tap: str, geometry: Geometry, dtype: str) -> list[ArraySpec]:
    """Return the arrays of one tap, as far as a model has them.

    Parameters
    ----------
    tap
        Out of :data:`vitfeat.store.layout.TAPS`.
    geometry
        The model's sizes.
    dtype
        Element type of features; summaries and norms are float32.
    """
    if tap == "attention_summary":
        return list(_summaries(geometry))
    if tap == NORMS_GROUP:
        return list(_norms(geometry))
    if tap in RESIDUAL_TAPS:
        return list(_tokens(tap, geometry, dtype, f"{tap}/", _TOKENS_OF[tap]))
    if tap in ("attention", "attention_mean"):
        return [_attention(tap, geometry, dtype)]
    if tap == "attention_centre":
        return [_centre(geometry)]
    if tap == "regions":
        return [_regions(geometry, dtype)]
    output = "each block's output, before the final norm"
    return [a for a in _tokens(tap, geometry, dtype, "", output) if a.name == tap]


def _tokens(tap: str, g: Geometry, dtype: str, group: str, description: str) -> Iterator[ArraySpec]:
    """Return an array for each kind of tokens that a model has."""
    kinds: list[tuple[str, str, str, tuple[int, ...]]] = []
    if g.has_cls:
        kinds.append(("cls", "CLS token", "", ()))
    if g.n_registers:
        kinds.append(("registers", "register tokens", "register", (g.n_registers,)))
    if g.ragged:
        kinds.append(("spatial", "spatial tokens, image by image and row by row,", "", ()))
    else:
        kinds.append(("spatial", "spatial tokens", "y x", g.grid))
    for name, words, dims, shape in kinds:
        yield ArraySpec(
            f"{group}{name}",
            ("image", "layer", *dims.split(), "channel"),
            (len(g.layers), *shape, g.width),
            dtype,
            tap,
            f"{words} of {description}",
        )


def _attention(tap: str, g: Geometry, dtype: str) -> ArraySpec:
    each = tap == "attention"
    words = "attention after the softmax" if each else "mean of attention over heads"
    return ArraySpec(
        tap,
        ("image", "layer", *(("head",) if each else ()), "query", "key"),
        (len(g.layers), *((g.heads,) if each else ()), g.n_tokens, g.n_tokens),
        dtype,
        tap,
        f"{words}; prefix tokens first, then the grid row by row",
    )


def _centre(g: Geometry) -> ArraySpec:
    return ArraySpec(
        "attention_centre",
        ("image", "layer", "head", "key"),
        (len(g.layers), g.heads, g.n_tokens),
        "float32",
        "attention_centre",
        "attention row of the centre token (row Y // 2, column X // 2 of the grid)",
    )


def _regions(g: Geometry, dtype: str) -> ArraySpec:
    return ArraySpec(
        "regions",
        ("region", "layer", "channel"),
        (len(g.layers), g.width),
        dtype,
        "regions",
        "mean of the spatial tokens of each block's output under an annotated mask, weighted by it",
    )


def _norms(g: Geometry) -> Iterator[ArraySpec]:
    for name, words in _NORMS.items():
        yield ArraySpec(
            f"{NORMS_GROUP}/{name}",
            ("image", "layer", "token"),
            (len(g.layers), g.n_tokens),
            "float32",
            NORMS_GROUP,
            f"L2 norm of every token of {words}; prefix tokens first, then the grid row by row",
        )


def _summaries(g: Geometry) -> Iterator[ArraySpec]:
    """Return the sufficient statistics of the attention metrics (docs/methods.md)."""
    layers, heads, (rows, columns) = len(g.layers), g.heads, g.grid

    def array(name: str, dims: str, shape: tuple[int, ...], description: str) -> ArraySpec:
        return ArraySpec(
            f"{SUMMARY_GROUP}/{name}",
            ("image", "layer", *dims.split()),
            (layers, *shape),
            "float32",
            "attention_summary",
            description,
        )

    if g.n_prefix:
        yield array(
            "prefix_query",
            "head prefix key",
            (heads, g.n_prefix, g.n_tokens),
            "attention rows of the prefix tokens (CLS, registers)",
        )
    yield array(
        "spatial_query",
        "head key",
        (heads, g.n_tokens),
        "mean over spatial queries of their attention rows",
    )
    yield array(
        "spatial_query_renormalised",
        "head y x",
        (heads, rows, columns),
        "mean over spatial queries of their rows without prefix keys, each divided by what is "
        "left; rows with nothing left count as zero",
    )
    yield array(
        "aligned",
        "head dy dx",
        (heads, 2 * rows - 1, 2 * columns - 1),
        "mean over spatial queries of their renormalised maps, each shifted so that the query "
        "stands in the centre",
    )
    yield array(
        "n_null",
        "head",
        (heads,),
        "number of spatial queries that attend to prefix tokens alone",
    )
    # Of one position or one head there is no deviation.
    if rows * columns > 1:
        yield array(
            "deviation_positions",
            "head",
            (heads,),
            "standard deviation over spatial queries (ddof 1), mean over spatial keys",
        )
    if heads > 1:
        yield array(
            "deviation_heads",
            "",
            (),
            "standard deviation over heads (ddof 1), mean over spatial queries and keys",
        )
        yield array(
            "deviation_heads_all",
            "",
            (),
            "standard deviation over heads (ddof 1), mean over all queries and keys",
        )
    yield array(
        "entropy",
        "head",
        (heads,),
        "mean over spatial queries of the entropy of their rows, in nats",
    )
