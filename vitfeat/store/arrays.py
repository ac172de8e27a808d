"""The arrays that each tap is stored in: names, dimensions, shapes, element types."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
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

#: Taps that are float32 whatever the features are, and never rounded to fewer bits: what metrics
#: are made of directly, taken from the pass before anything is rounded.
EXACT_TAPS = (SUMMARY_GROUP, "attention_centre", NORMS_GROUP)


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model's tensors: all that the layout must know of it."""

    #: Numbers of the stored layers, counted from 0.
    layers: tuple[int, ...]
    #: Channels of a token; attention heads of a layer.
    width: int
    heads: int
    #: Rows and columns of the token grid.
    grid: tuple[int, int]
    #: The tokens that stand before the grid.
    has_cls: bool
    n_registers: int
    #: Whether blocks add attention and MLP to skips of their own.
    has_branches: bool = True
    #: Whether the images have grids of their own; `grid` is then the model's usual one.
    ragged: bool = False

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the grid."""
        return int(self.has_cls) + self.n_registers

    @property
    def n_tokens(self) -> int:
        """Number of all tokens of an image."""
        return self.n_prefix + prod(self.grid)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension of an entry, by name."""
        rows, columns = self.grid
        return {
            "layer": len(self.layers),
            "head": self.heads,
            "channel": self.width,
            "register": self.n_registers,
            "prefix": self.n_prefix,
            **dict.fromkeys(("token", "query", "key"), self.n_tokens),
            **{"y": rows, "x": columns, "dy": 2 * rows - 1, "dx": 2 * columns - 1},
        }


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: its first dimension counts images, or entries that images have."""

    #: Path inside the group.
    name: str
    #: First ``image``, or another where images have no or several entries.
    dims: tuple[str, ...]
    #: Of one entry: everything but the first dimension.
    shape: tuple[int, ...]
    dtype: str
    tap: str
    description: str
    #: Where the entries of each image start, and behind them their number; entries stand in the
    #: order of the images. None for one entry an image.
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
    """Return the coordinate that says which rows an array's entries, counted by `dim`, are of.

    It stands beside the array: ``region_image`` of regions; ``token_start`` of the tokens of grids
    of different sizes, which says where those of each image start; and of arrays of some images
    ``{tap}_image``, named as the dimension that it labels.
    """
    own = {"region": "region_image", "token": "token_start"}.get(dim, dim)
    group = group_of(name)
    return f"{group}/{own}" if group else own


_TOKENS = {
    "cls": ("channel", "CLS token"),
    "registers": ("register channel", "register tokens"),
    "spatial": ("y x channel", "spatial tokens"),
}
_OUTPUT = "each block's output, before the final norm"
_RESIDUAL = {
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
_ORDER = "prefix tokens first, then the grid row by row"

# The sufficient statistics of the attention metrics (docs/methods.md).
_SUMMARIES = {
    "prefix_query": ("head prefix key", "attention rows of the prefix tokens (CLS, registers)"),
    "spatial_query": ("head key", "mean over spatial queries of their attention rows"),
    "spatial_query_renormalised": (
        "head y x",
        "mean over spatial queries of their rows without prefix keys, each divided by what is "
        "left; rows with nothing left count as zero",
    ),
    "aligned": (
        "head dy dx",
        "mean over spatial queries of their renormalised maps, each shifted so that the query "
        "stands in the centre",
    ),
    "n_null": ("head", "number of spatial queries that attend to prefix tokens alone"),
    "deviation_positions": (
        "head",
        "standard deviation over spatial queries (ddof 1), mean over spatial keys",
    ),
    "deviation_heads": (
        "",
        "standard deviation over heads (ddof 1), mean over spatial queries and keys",
    ),
    "deviation_heads_all": (
        "",
        "standard deviation over heads (ddof 1), mean over all queries and keys",
    ),
    "entropy": ("head", "mean over spatial queries of the entropy of their rows, in nats"),
}

# By tap, its arrays by name: their dimensions behind image and layer, what they hold.
_ARRAYS: dict[str, dict[str, tuple[str, str]]] = {
    **{k: {k: (dims, f"{words} of {_OUTPUT}")} for k, (dims, words) in _TOKENS.items()},
    **{
        tap: {f"{tap}/{k}": (dims, f"{words} of {what}") for k, (dims, words) in _TOKENS.items()}
        for tap, what in _RESIDUAL.items()
    },
    "attention": {
        "attention": ("head query key", f"attention after the softmax; {_ORDER}"),
    },
    "attention_mean": {
        "attention_mean": ("query key", f"mean of attention over heads; {_ORDER}"),
    },
    "attention_centre": {
        "attention_centre": (
            "head key",
            "attention row of the centre token (row Y // 2, column X // 2 of the grid)",
        ),
    },
    "regions": {
        "regions": (
            "channel",
            "mean of the spatial tokens of each block's output under an annotated mask, weighted "
            "by it",
        ),
    },
    NORMS_GROUP: {
        f"{NORMS_GROUP}/{name}": ("token", f"L2 norm of every token of {what}; {_ORDER}")
        for name, what in _NORMS.items()
    },
    SUMMARY_GROUP: {f"{SUMMARY_GROUP}/{name}": told for name, told in _SUMMARIES.items()},
}


def arrays_of(tap: str, geometry: Geometry, dtype: str) -> list[ArraySpec]:
    """Return the arrays of one tap, as far as a model has them, with features of a type."""
    sizes, arrays = geometry.sizes, []
    for name, (inner, description) in _ARRAYS[tap].items():
        own = name.rpartition("/")[2]
        dims = ("layer", *inner.split())
        if own == "spatial" and geometry.ragged:
            dims = ("layer", "channel")
            description = description.replace(" of", ", image by image and row by row, of", 1)
        shape = tuple(sizes[dim] for dim in dims)
        # No such tokens; and of one position or one head there is no deviation.
        lacks = {
            "cls": not geometry.has_cls,
            "deviation_positions": prod(geometry.grid) == 1,
            "deviation_heads": geometry.heads == 1,
            "deviation_heads_all": geometry.heads == 1,
        }.get(own, 0 in shape)
        if not lacks:
            first = "region" if tap == "regions" else "image"
            exact = "float32" if tap in EXACT_TAPS else dtype
            arrays.append(ArraySpec(name, (first, *dims), shape, exact, tap, description))
    return arrays
