"""What attention metrics read of a store: summaries, or the attention where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

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


def tokens_of(store: FeatureStore) -> Tokens:
    """Return how the tokens of a store's attention are ordered."""
    attributes = store.attributes
    return Tokens(store.grid, bool(attributes["has_cls"]), int(attributes["n_registers"]))


class Piece(NamedTuple):
    """Images start:stop of the layer at a position, as averages take them in."""

    position: int
    start: int
    stop: int
    batch: AttentionSummary | NDArray[Any]


@dataclass(frozen=True)
class AttentionSource:
    """Attention of a store's images, as far as metrics need it.

    ``names`` are the store's arrays to read, by the summary that each is, or ``attention`` alone
    where there are no summaries; ``rows`` the rows of the store that their entries are of.
    """

    store: FeatureStore
    names: dict[str, str]
    rows: NDArray[np.int64]
    tokens: Tokens

    @property
    def patch_size(self) -> int | None:
        """Edge of a patch in pixels of the model's input; None unless a square of whole pixels."""
        height, width = map(int, self.store.attributes["request"]["view"]["size"])
        rows, columns = self.tokens.grid
        size = height // rows
        return size if (height, width) == (size * rows, size * columns) else None

    def pieces(self) -> Iterator[Piece]:
        """Read layer by layer, some images at a time."""
        arrays = [self.store[name] for name in self.names.values()]
        largest = max(arrays, key=lambda array: prod(array.shape[2:]))
        per_image = sum(prod(a.shape[2:]) * a.dtype.itemsize for a in arrays)
        rows = whole_chunks(largest, max(1, _PIECE_BYTES // per_image))
        for position in range(len(self.store.layers)):
            for start, stop in slices(len(self.rows), rows):
                read = {
                    key: read_rows(self.store, name, start, stop, position)
                    for key, name in self.names.items()
                }
                whole = read.get("attention")
                batch = AttentionSummary(read, self.tokens) if whole is None else whole
                yield Piece(position, start, stop, batch)


def attention_of(store: FeatureStore) -> AttentionSource:
    """Find what metrics are made from in a store."""
    prefix = f"{SUMMARY_GROUP}/"
    names = {n.removeprefix(prefix): n for n in store.array_names if n.startswith(prefix)}
    if "deviation_heads" in names and store.attributes["format_version"] < 4:
        raise AnalysisError(
            f"{store.path}: its deviation over heads is of all tokens (format version "
            f"{store.attributes['format_version']}), today's of spatial ones: extract it again; in "
            f"the workflow, delete {manifest_path(store.path).name} beside it first"
        )
    if not names and "attention" not in store:
        raise AnalysisError(
            f"{store.path}: neither attention summaries nor attention in this store (it holds "
            f"{store.held}); add attention_summary to extraction.taps and "
            "extract it again"
        )
    names = names or {"attention": "attention"}
    return AttentionSource(store, names, store.rows(next(iter(names.values()))), tokens_of(store))
