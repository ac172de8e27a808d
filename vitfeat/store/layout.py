"""What a store can hold, and how its images are cut into blocks, chunks and shards.

With ``arrays.py`` the one place that knows. docs/store.md is the specification; a change here that
alters what is on disk adds to :data:`FORMAT_VERSIONS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS, ArraySpec, Geometry, arrays_of

#: Versions of the format that readers know. Arrays of some images only came with 2; a store without
#: any is still of version 1, so that readers of that version are not misled by shorter arrays.
FORMAT_VERSIONS = (1, 2)

#: Attribute of the group under which everything of ours stands.
ATTRIBUTE = "vitfeat"

#: What a store can hold.
TAPS = (
    "cls",
    "registers",
    "spatial",
    "attention",
    "attention_summary",
    "attention_mean",
    "block_input",
    "attn_branch",
    "mlp_branch",
    "residual_norms",
)

#: The arrays that make up each kind of tokens; a model may lack CLS or registers.
TOKEN_ARRAYS = {
    "cls": ("cls",),
    "mean": ("spatial",),
    "spatial": ("spatial",),
    "all": ("cls", "registers", "spatial"),
}

#: Element types that features may be stored in. Summaries and norms are always float32.
DTYPES = ("float16", "float32")

# A block of images is one shard in every array; it stands in memory a few times while it is
# written, so it is bounded. A chunk is what a reader must decode to see one layer of one image.
_SHARD_BYTES = 64 * 2**20
_CHUNK_BYTES = 4 * 2**20
_MAX_BLOCK = 512


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
        Images of a block: one shard in every array of all images, the unit of writing and resuming.
    """

    arrays: tuple[ArraySpec, ...]
    n_images: int
    block: int

    @property
    def format_version(self) -> int:
        """The first version of the format that knows such a store."""
        return 2 if any(a.is_limited for a in self.arrays) else 1

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last may be short."""
        return -(-self.n_images // self.block)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.n_images))

    def length(self, array: ArraySpec) -> int:
        """Return the number of images that an array holds."""
        return self.n_images if array.rows is None else len(array.rows)

    def entries(self, array: ArraySpec, rows: range) -> range:
        """Return where in an array those of some consecutive rows stand that it holds."""
        if array.rows is None:
            return rows
        return range(bisect_left(array.rows, rows.start), bisect_left(array.rows, rows.stop))

    def most_entries(self, array: ArraySpec, n_rows: int) -> int:
        """Return how many images at most an array holds of one run of rows, cut from row 0 on."""
        if array.rows is None:
            return min(n_rows, self.n_images)
        runs = range(0, self.n_images, n_rows)
        return max(len(self.entries(array, range(a, a + n_rows))) for a in runs)

    def shard_rows(self, array: ArraySpec) -> int:
        """Return how many images one shard of an array holds."""
        if array.rows is None:
            return self.block
        return _power_of_two(array.bytes_per_image, len(array.rows))

    def n_shards(self, array: ArraySpec) -> int:
        """Return the number of shards of an array; the last may be short."""
        return -(-self.length(array) // self.shard_rows(array))

    def chunk_rows(self, array: ArraySpec) -> int:
        """Return how many images one chunk of an array holds: a power of two within the shard."""
        per_layer = array.bytes_per_image / (array.shape[0] if array.has_layers else 1)
        rows = self.shard_rows(array)
        while rows > 1 and rows * per_layer > _CHUNK_BYTES:
            rows //= 2
        return rows

    def chunk_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a chunk: one layer of some images."""
        rest = (1, *array.shape[1:]) if array.has_layers else array.shape
        return (self.chunk_rows(array), *rest)

    def shard_shape(self, array: ArraySpec) -> tuple[int, ...]:
        """Return a shard: all layers of one block, or of as many images that are kept."""
        return (self.shard_rows(array), *array.shape)

    def bytes_of(self, n_rows: int) -> int:
        """Return the uncompressed bytes that a run of rows takes at most, cut from row 0 on."""
        return sum(self.most_entries(a, n_rows) * a.bytes_per_image for a in self.arrays)

    @property
    def n_bytes(self) -> int:
        """Uncompressed bytes of all arrays."""
        return sum(self.length(a) * a.bytes_per_image for a in self.arrays)

    @property
    def limited_bytes(self) -> int:
        """Uncompressed bytes of the arrays that hold some images only."""
        return sum(self.length(a) * a.bytes_per_image for a in self.arrays if a.is_limited)


def available_taps(geometry: Geometry, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the wanted taps that a model has, in the standard order.

    A model without a CLS token has no ``cls``, one without registers no ``registers``, and one
    whose blocks add attention and MLP at once, or nothing, none of the residual connections.
    """
    found = set(wanted)
    if not geometry.has_branches:
        found -= {*RESIDUAL_TAPS, NORMS_GROUP}
    if not geometry.has_cls:
        found.discard("cls")
    if not geometry.n_registers:
        found.discard("registers")
    return tuple(t for t in TAPS if t in found)


def plan_layout(
    geometry: Geometry,
    taps: Sequence[str],
    n_images: int,
    dtype: str,
    kept: Mapping[str, Sequence[int]] | None = None,
) -> Layout:
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
    kept
        By tap that is kept for some images only: their rows, in order.
    """
    kept = kept or {}
    arrays = tuple(
        _limited(a, kept[tap]) if tap in kept else a
        for tap in taps
        for a in arrays_of(tap, geometry, dtype)
    )
    # What a row of the dataset takes on average: of arrays of a few images hardly anything.
    largest = max(
        a.bytes_per_image * (1 if a.rows is None else len(a.rows) / n_images) for a in arrays
    )
    return Layout(arrays, n_images, _power_of_two(largest, n_images))


def _limited(array: ArraySpec, rows: Sequence[int]) -> ArraySpec:
    return replace(array, dims=(f"{array.tap}_image", *array.dims[1:]), rows=tuple(rows))


def _power_of_two(bytes_per_image: float, n_images: int) -> int:
    """Return how many images share a shard: so that batches and chunks fit, whatever their size."""
    rows = _MAX_BLOCK
    while rows > 1 and (rows * bytes_per_image > _SHARD_BYTES or rows >= 2 * n_images):
        rows //= 2
    return rows
