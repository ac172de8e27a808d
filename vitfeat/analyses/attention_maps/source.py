"""What attention metrics read of a store: summaries, or the attention where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import AttentionSummary, Tokens
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import slices, whole_chunks
from vitfeat.store.arrays import SUMMARY_GROUP
from vitfeat.store.paths import manifest_path
from vitfeat.store.reader import FeatureStore, read_rows

# Bytes that are read at once, of all arrays together; a few such pieces are in memory.
_PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Piece:
    """Some images of one layer: entries start:stop of each array, (image, ...)."""

    position: int
    start: int
    stop: int
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class AttentionSource:
    """Attention of a store's images, as far as metrics need it.

    Attributes
    ----------
    store
        The store.
    names
        The store's arrays to read, by the summary that each is; ``attention`` alone where there
        are no summaries.
    rows
        Rows of the store that the arrays' entries are of.
    tokens
        How the model's tokens are ordered.
    """

    store: FeatureStore
    names: dict[str, str]
    rows: NDArray[np.int64]
    tokens: Tokens

    @property
    def patch_size(self) -> int | None:
        """Edge of a patch in pixels of the model's input; None unless a square of whole pixels."""
        return _patch_size(_view_size(self.store), self.tokens.grid)

    def pieces(self) -> Iterator[Piece]:
        """Read layer by layer, some images at a time."""
        arrays = [self.store[name] for name in self.names.values()]
        largest = max(arrays, key=lambda array: prod(array.shape[2:]))
        per_image = sum(prod(a.shape[2:]) * a.dtype.itemsize for a in arrays)
        rows = whole_chunks(largest, max(1, _PIECE_BYTES // per_image))
        for position in range(len(self.store.layers)):
            for start, stop in slices(len(self.rows), rows):
                yield Piece(
                    position,
                    start,
                    stop,
                    {
                        key: read_rows(self.store, name, start, stop, position)
                        for key, name in self.names.items()
                    },
                )

    def batch(self, piece: Piece) -> AttentionSummary | NDArray[Any]:
        """Return a piece as averages take it in.

        Raises
        ------
        AnalysisError
            The summaries do not fit one another.
        """
        if "attention" in piece.arrays:
            return piece.arrays["attention"]
        return AttentionSummary(piece.arrays, self.tokens)


def attention_of(store: FeatureStore) -> AttentionSource:
    """Find what metrics are made from in a store.

    Raises
    ------
    AnalysisError
        There are neither summaries nor attention, or the grid cannot be told.
    """
    has_cls, registers = store.model_has("cls"), int(store.attributes["n_registers"])
    prefix = f"{SUMMARY_GROUP}/"
    names = {n.removeprefix(prefix): n for n in store.array_names if n.startswith(prefix)}
    if "deviation_heads" in names and store.attributes["format_version"] < 4:
        raise AnalysisError(
            f"{store.path}: its deviation over heads is of all tokens (format version "
            f"{store.attributes['format_version']}), today's of spatial ones: extract it again; in "
            f"the workflow, delete {manifest_path(store.path).name} beside it first"
        )
    if names:
        rows, columns = store[names["spatial_query_renormalised"]].shape[-2:]
        grid = rows, columns
    elif "attention" in store:
        names = {"attention": "attention"}
        n_spatial = store["attention"].shape[-1] - int(has_cls) - registers
        grid = _grid(store, n_spatial)
    else:
        raise AnalysisError(
            f"{store.path}: neither attention summaries nor attention in this store (it holds "
            f"{store.held}); add attention_summary to extraction.taps and "
            "extract it again"
        )
    entries = store.rows(next(iter(names.values())))
    return AttentionSource(store, names, entries, Tokens(grid, has_cls, registers))


def _view_size(store: FeatureStore) -> tuple[int, int]:
    """Height and width of the model's input in pixels."""
    height, width = store.attributes["request"]["view"]["size"]
    return int(height), int(width)


def _grid(store: FeatureStore, n_spatial: int) -> tuple[int, int]:
    """Rows and columns of the grid: from an array that has them, or from square patches."""
    for name in ("spatial", "block_input/spatial", "attn_branch/spatial", "mlp_branch/spatial"):
        if name in store:
            rows, columns = store[name].shape[2:4]
            return rows, columns
    height, width = _view_size(store)
    for patch in range(1, min(height, width) + 1):
        grid = height // patch, width // patch
        if prod(grid) == n_spatial and _patch_size((height, width), grid) == patch:
            return grid
    raise AnalysisError(
        f"{store.path}: the grid of {n_spatial} spatial tokens cannot be told from an input of "
        f"{height} x {width} pixels; add attention_summary or spatial to extraction.taps"
    )


def _patch_size(view: tuple[int, int], grid: tuple[int, int]) -> int | None:
    size = view[0] // grid[0]
    return size if view == (size * grid[0], size * grid[1]) else None
