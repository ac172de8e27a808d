"""What a store can hold, and how its images are cut into blocks, chunks and shards.

With ``arrays.py`` the one place that knows. docs/store.md is the specification; a change here that
alters what is on disk makes a new :data:`FORMAT_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vitfeat.store.arrays import (
    NORMS_GROUP,
    RESIDUAL_TAPS,
    ArraySpec,
    Geometry,
    arrays_of,
    starts_of,
)

#: The version of the format that is written.
FORMAT_VERSION = 4

#: Versions of the format that readers know. Arrays of some images only came with 2, arrays of
#: several entries an image with 3; with 4 the deviation over heads of attention summaries is of
#: spatial tokens, and the seal has a hash of every file, or size and digest.
FORMAT_VERSIONS = (1, 2, 3, FORMAT_VERSION)

#: Attribute of the group under which everything of ours stands.
ATTRIBUTE = "vitfeat"

#: Between the numbers of a shard's file name: one folder an array, and none a shard.
SEPARATOR = "."

#: What a store can hold.
TAPS = (
    "cls",
    "registers",
    "spatial",
    "attention",
    "attention_summary",
    "attention_mean",
    "attention_centre",
    "block_input",
    "attn_branch",
    "mlp_branch",
    "residual_norms",
    "regions",
)

#: What is stored where nobody says what.
DEFAULT_TAPS = ("cls", "spatial")

#: What a store of grids of different sizes can hold.
RAGGED_TAPS = ("cls", "registers", "spatial", "regions")

#: The arrays that make up each kind of tokens; a model may lack CLS or registers.
TOKEN_ARRAYS = {
    "cls": ("cls",),
    "mean": ("spatial",),
    "spatial": ("spatial",),
    "all": ("cls", "registers", "spatial"),
}

# A block of images stands in memory a few times while it is written, so it is bounded, and so is a
# shard. A chunk is what a reader must decode to see one layer of one image: smaller where it would
# reach over blocks.
_SHARD_BYTES = 64 * 2**20
_CHUNK_BYTES = 4 * 2**20
_CHUNK_BYTES_OVER_BLOCKS = 2**17
_MAX_BLOCK = 512

# Images of a shard: what the blocks have of it stands beside them until all are there.
_MAX_IMAGES = 2**13

# Tokens and regions are many times as many as images, and small.
_MAX_ENTRIES = 2**16


def shard_key(shard: int, ndim: int, separator: str = SEPARATOR) -> str:
    """Return the file of a shard, or of an unsharded array's chunk, below its array's folder.

    Shards reach over everything but the first dimension.
    """
    return separator.join(["c", str(shard), *["0"] * (ndim - 1)])


@dataclass(frozen=True)
class Layout:
    """Arrays of a store and how images are cut into blocks and chunks."""

    arrays: tuple[ArraySpec, ...]
    n_images: int
    #: Images of a block: the unit of writing and resuming.
    block: int
    #: Images of a shard at most, where an array has one entry an image.
    span: int = _MAX_IMAGES

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last may be short."""
        return -(-self.n_images // self.block)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.n_images))

    def part(self, number: int, of: int) -> range:
        """Return the blocks of one of several jobs, numbered from 1: consecutive ones.

        Jobs begin with a shard of every array where each has shards of its own to fill.
        """
        spans = [self.shard_rows(a) // self.block for a in self.arrays if a.starts is None]
        step = max(spans, default=1)
        while step > 1 and self.n_blocks < 4 * of * step:
            step //= 2
        steps = -(-self.n_blocks // step)
        first, stop = (min(step * (n * steps // of), self.n_blocks) for n in (number - 1, number))
        return range(first, stop)

    def length(self, array: ArraySpec) -> int:
        """Return the number of entries that an array holds."""
        return self.n_images if array.starts is None else array.starts[-1]

    def entries(self, array: ArraySpec, rows: range) -> range:
        """Return where in an array the entries of some consecutive rows stand."""
        if array.starts is None:
            return rows
        return range(array.starts[rows.start], array.starts[rows.stop])

    def most_entries(self, array: ArraySpec, n_rows: int) -> int:
        """Return how many entries at most an array holds of one run of rows, cut from row 0 on."""
        runs = range(0, self.n_images, n_rows)
        return max(len(self.entries(array, range(a, min(a + n_rows, self.n_images)))) for a in runs)

    def shard_rows(self, array: ArraySpec) -> int:
        """Return how many entries one shard of an array holds: of one an image, whole blocks."""
        if array.starts is None:
            rows = _power_of_two(array.bytes_per_entry, self.n_images, self.span)
            return max(self.block, rows)
        most = _MAX_BLOCK if array.dims[0].endswith("_image") else _MAX_ENTRIES
        return _power_of_two(array.bytes_per_entry, self.length(array), most)

    def is_gathered(self, array: ArraySpec) -> bool:
        """Whether a shard of an array is put together from what several blocks have of it."""
        return array.starts is not None or self.shard_rows(array) > self.block

    def shards_of(self, array: ArraySpec, block: int) -> range:
        """Return the shards of an array that a block has some of."""
        entries = self.entries(array, self.rows(block))
        step = self.shard_rows(array)
        return range(entries.start // step, -(-entries.stop // step) if entries else 0)

    def entries_of(self, array: ArraySpec, shard: int) -> range:
        """Return the entries of a shard."""
        step = self.shard_rows(array)
        return range(shard * step, min((shard + 1) * step, self.length(array)))

    def blocks_of(self, array: ArraySpec, shard: int) -> range:
        """Return the blocks that a shard's entries are of, from the first to the last."""
        entries = self.entries_of(array, shard)
        first, last = (array.row_of(e) // self.block for e in (entries[0], entries[-1]))
        return range(first, last + 1)

    def n_shards(self, array: ArraySpec) -> int:
        """Return the number of shards of an array; the last may be short."""
        return -(-self.length(array) // self.shard_rows(array))

    def chunk_rows(self, array: ArraySpec) -> int:
        """Return how many entries one chunk of an array holds: a power of two within the shard."""
        per_layer = array.bytes_per_entry / (array.shape[0] if array.has_layers else 1)
        rows = self.shard_rows(array)
        if array.starts is None:
            while rows > self.block and (
                rows > _MAX_BLOCK or rows * per_layer > _CHUNK_BYTES_OVER_BLOCKS
            ):
                rows //= 2
        while rows > 1 and rows * per_layer > _CHUNK_BYTES:
            rows //= 2
        return rows

    def chunk_counts(self, array: ArraySpec) -> tuple[int, ...]:
        """Return how many chunks a shard has along each dimension."""
        shapes = zip(self.shard_shape(array), self.chunk_shape(array), strict=True)
        return tuple(shard // chunk for shard, chunk in shapes)

    def chunk_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a chunk: one layer of some images."""
        rest = (1, *array.shape[1:]) if array.has_layers else array.shape
        return (self.chunk_rows(array), *rest)

    def shard_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a shard: all layers of some entries."""
        return (self.shard_rows(array), *array.shape)

    def file_of(self, array: ArraySpec, shard: int) -> str:
        """Return the file of a shard of an array, below the store's folder."""
        return f"{array.name}/{shard_key(shard, 1 + len(array.shape))}"

    def bytes_of(self, n_rows: int) -> int:
        """Return the uncompressed bytes that a run of rows takes at most, cut from row 0 on."""
        return sum(self.most_entries(a, n_rows) * a.bytes_per_entry for a in self.arrays)

    @property
    def n_bytes(self) -> int:
        """Uncompressed bytes of all arrays."""
        return sum(self.length(a) * a.bytes_per_entry for a in self.arrays)

    @property
    def pieces_bytes(self) -> int:
        """Uncompressed bytes that may stand beside the blocks until shards are put together."""
        images = min(self.n_images, 2 * self.span)
        return sum(
            a.bytes_per_entry * (images if a.starts is None else self.length(a))
            for a in self.arrays
            if self.is_gathered(a)
        )


def available_taps(geometry: Geometry, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the wanted taps that a model has, in the standard order.

    A model without a CLS token has no ``cls``, one without registers no ``registers``, and one
    whose blocks add attention and MLP at once, or nothing, none of the residual connections.
    """
    lacking = {
        *(() if geometry.has_branches else (*RESIDUAL_TAPS, NORMS_GROUP)),
        *(() if geometry.has_cls else ("cls",)),
        *(() if geometry.n_registers else ("registers",)),
    }
    asked = set(wanted) - lacking
    return tuple(t for t in TAPS if t in asked)


def plan_layout(
    geometry: Geometry,
    taps: Sequence[str],
    n_images: int,
    dtype: str,
    kept: Mapping[str, Sequence[int]] | None = None,
    starts: Mapping[str, Sequence[int]] | None = None,
) -> Layout:
    """Lay out a store of some taps, as :func:`available_taps` gives them, of features of a type.

    `kept` are by tap that is kept for some images only their rows, in order; `starts` by tap of
    several entries an image, ``regions`` or the ``spatial`` tokens of grids of different sizes,
    where those of each image start, and behind them their number.
    """
    kept, starts = kept or {}, starts or {}
    arrays = []
    for tap in taps:
        for array in arrays_of(tap, geometry, dtype):
            if tap in starts:
                if not starts[tap][-1]:
                    raise ValueError(f"tap {tap}: no image has any")
                dims = ("token", *array.dims[1:]) if tap == "spatial" else array.dims
                array = replace(array, dims=dims, starts=tuple(map(int, starts[tap])))
            elif tap in kept:
                dims = (f"{tap}_image", *array.dims[1:])
                array = replace(array, dims=dims, starts=starts_of(kept[tap], n_images))
            arrays.append(array)
    block = block_for(
        ((a.bytes_per_entry, n_images if a.starts is None else a.starts[-1]) for a in arrays),
        n_images,
    )
    return Layout(tuple(arrays), n_images, block)


def block_for(arrays: Iterable[tuple[int, int]], n_images: int) -> int:
    """Return how many images a block has, by bytes and number of the entries of each array."""
    # What a row of the dataset takes on average: of arrays of a few images hardly anything.
    largest = max(n_bytes * n_entries / n_images for n_bytes, n_entries in arrays)
    return _power_of_two(largest, n_images, _MAX_BLOCK)


def _power_of_two(bytes_per_entry: float, n_entries: int, most: int) -> int:
    """Return how many entries share a shard: so that batches and chunks fit."""
    rows = most
    while rows > 1 and (rows * bytes_per_entry > _SHARD_BYTES or rows >= 2 * n_entries):
        rows //= 2
    return rows
