"""The one place that knows a store's names, dimensions, chunks and shards.

docs/store.md is the specification; a change here that alters what is on disk raises
:data:`FORMAT_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

FORMAT_VERSION = 1

#: Attribute of the group under which everything of ours stands.
ATTRIBUTE = "vitfeat"

#: Subgroup of the attention summaries.
SUMMARY_GROUP = "attention_summary"

#: What a store can hold.
TAPS = ("cls", "registers", "spatial", "attention", "attention_summary")

#: The arrays that make up each kind of tokens; a model may lack CLS or registers.
TOKEN_ARRAYS = {
    "cls": ("cls",),
    "mean": ("spatial",),
    "spatial": ("spatial",),
    "all": ("cls", "registers", "spatial"),
}

#: Element types that features may be stored in. Summaries are always float32.
DTYPES = ("float16", "float32")

# A block of images is one shard in every array; it stands in memory a few times while it is
# written, so it is bounded. A chunk is what a reader must decode to see one layer of one image.
_SHARD_BYTES = 64 * 2**20
_CHUNK_BYTES = 4 * 2**20
_MAX_BLOCK = 512


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
    """

    layers: tuple[int, ...]
    width: int
    heads: int
    grid: tuple[int, int]
    has_cls: bool
    n_registers: int

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
    """One array of a store: its first dimension is always ``image``.

    Attributes
    ----------
    name
        Path inside the group.
    dims
        Dimension names, ``image`` first.
    shape
        Shape of one image's part: everything but the first dimension.
    dtype
        NumPy's name of the element type.
    tap
        The tap that it belongs to.
    description
        One sentence for the array's attributes.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    tap: str
    description: str

    @property
    def bytes_per_image(self) -> int:
        """Uncompressed bytes of one image."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def has_layers(self) -> bool:
        """Whether the second dimension is ``layer``."""
        return len(self.dims) > 1 and self.dims[1] == "layer"


@dataclass(frozen=True)
class Layout:
    """Arrays of a store and how images are cut into blocks and chunks.

    Attributes
    ----------
    arrays
        The arrays that the extraction fills.
    n_images
        Number of rows.
    block
        Images of a block: one shard in every array, the unit of writing and resuming.
    """

    arrays: tuple[ArraySpec, ...]
    n_images: int
    block: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last may be short."""
        return -(-self.n_images // self.block)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.n_images))

    def chunk_rows(self, array: ArraySpec) -> int:
        """Return how many images one chunk of an array holds: a power of two within the block."""
        per_layer = array.bytes_per_image / (array.shape[0] if array.has_layers else 1)
        rows = self.block
        while rows > 1 and rows * per_layer > _CHUNK_BYTES:
            rows //= 2
        return rows

    def chunk_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a chunk: one layer of some images."""
        rest = (1, *array.shape[1:]) if array.has_layers else array.shape
        return (self.chunk_rows(array), *rest)

    def shard_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a shard: all layers of one block."""
        return (self.block, *array.shape)

    @property
    def bytes_per_block(self) -> int:
        """Uncompressed bytes of one block in all arrays."""
        return self.block * sum(a.bytes_per_image for a in self.arrays)

    @property
    def n_bytes(self) -> int:
        """Uncompressed bytes of all arrays."""
        return self.n_images * sum(a.bytes_per_image for a in self.arrays)


def available_taps(geometry: Geometry, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the wanted taps that a model has, in the standard order.

    A model without a CLS token has no ``cls``, one without registers no ``registers``.
    """
    found = set(wanted)
    if not geometry.has_cls:
        found.discard("cls")
    if not geometry.n_registers:
        found.discard("registers")
    return tuple(t for t in TAPS if t in found)


def plan_layout(geometry: Geometry, taps: Sequence[str], n_images: int, dtype: str) -> Layout:
    """Lay out a store.

    Parameters
    ----------
    geometry
        The model's sizes.
    taps
        What to store, out of :data:`TAPS`, as :func:`available_taps` gives them.
    n_images
        Number of rows.
    dtype
        Element type of the features, out of :data:`DTYPES`.
    """
    arrays = tuple(a for tap in taps for a in _arrays(tap, geometry, dtype))
    largest = max(a.bytes_per_image for a in arrays)
    # A power of two, so that batches and chunks fit into it whatever their size.
    block = _MAX_BLOCK
    while block > 1 and (block * largest > _SHARD_BYTES or block >= 2 * n_images):
        block //= 2
    return Layout(arrays, n_images, block)


def _arrays(tap: str, g: Geometry, dtype: str) -> list[ArraySpec]:
    layers, (rows, columns) = len(g.layers), g.grid
    if tap == "cls":
        return [
            ArraySpec(
                "cls",
                ("image", "layer", "channel"),
                (layers, g.width),
                dtype,
                tap,
                "CLS token of each block's output, before the final norm",
            )
        ]
    if tap == "registers":
        return [
            ArraySpec(
                "registers",
                ("image", "layer", "register", "channel"),
                (layers, g.n_registers, g.width),
                dtype,
                tap,
                "register tokens of each block's output, before the final norm",
            )
        ]
    if tap == "spatial":
        return [
            ArraySpec(
                "spatial",
                ("image", "layer", "y", "x", "channel"),
                (layers, rows, columns, g.width),
                dtype,
                tap,
                "spatial tokens of each block's output, before the final norm",
            )
        ]
    if tap == "attention":
        return [
            ArraySpec(
                "attention",
                ("image", "layer", "head", "query", "key"),
                (layers, g.heads, g.n_tokens, g.n_tokens),
                dtype,
                tap,
                "attention after the softmax; prefix tokens first, then the grid row by row",
            )
        ]
    return _summary_arrays(g)


def _summary_arrays(g: Geometry) -> list[ArraySpec]:
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

    prefix = [
        array(
            "prefix_query",
            "head prefix key",
            (heads, g.n_prefix, g.n_tokens),
            "attention rows of the prefix tokens (CLS, registers)",
        )
    ]
    deviation_positions = [
        array(
            "deviation_positions",
            "head",
            (heads,),
            "standard deviation over spatial queries (ddof 1), mean over spatial keys",
        )
    ]
    deviation_heads = [
        array(
            "deviation_heads",
            "",
            (),
            "standard deviation over heads (ddof 1), mean over queries and keys",
        )
    ]
    return [
        *(prefix if g.n_prefix else []),
        array(
            "spatial_query",
            "head key",
            (heads, g.n_tokens),
            "mean over spatial queries of their attention rows",
        ),
        array(
            "spatial_query_renormalised",
            "head y x",
            (heads, rows, columns),
            "mean over spatial queries of their rows without prefix keys, each divided by what is "
            "left; rows with nothing left count as zero",
        ),
        array(
            "aligned",
            "head dy dx",
            (heads, 2 * rows - 1, 2 * columns - 1),
            "mean over spatial queries of their renormalised maps, each shifted so that the query "
            "stands in the centre",
        ),
        array(
            "n_null",
            "head",
            (heads,),
            "number of spatial queries that attend to prefix tokens alone",
        ),
        # Of one position or one head there is none.
        *(deviation_positions if rows * columns > 1 else []),
        *(deviation_heads if heads > 1 else []),
        array(
            "entropy",
            "head",
            (heads,),
            "mean over spatial queries of the entropy of their rows, in nats",
        ),
    ]
