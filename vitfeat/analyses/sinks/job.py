"""Which share of attention goes to high-norm spatial tokens, by layer and head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vitfeat.analyses.attention.norms import Rule
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.analyses.sinks.across import IMAGES, SHARE, TOKENS
from vitfeat.analyses.sinks.compute import Bool, Floats, high_norm_tokens, sink_shares
from vitfeat.analyses.sinks.settings import SinkSettings
from vitfeat.errors import AnalysisError
from vitfeat.jobs.queries import QUERIES, query_rows, usable_queries
from vitfeat.jobs.reading import reader, rows_that_fit, shared_entries, slices
from vitfeat.store.opening import open_store
from vitfeat.store.reader import Entries, FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)

_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Source:
    """The images of a store that have both tokens and attention."""

    store: FeatureStore
    n: int
    entries: dict[str, Entries]

    def high(self, position: int, rule: Rule) -> Bool:
        """Return which tokens are high-norm in one layer: (image, key)."""
        read = reader(self.store, "spatial", position, self.entries["spatial"])
        pieces = self._slices("spatial")
        return np.concatenate([high_norm_tokens(read(*piece), rule) for piece in pieces])

    def shares(self, query: str, position: int, high: Bool) -> Floats:
        """Return the shares of a query's attention in one layer: (image, head)."""
        name = QUERIES[query]
        read = partial(query_rows, self.store, query, position, entries=self.entries[name])
        pieces = self._slices(name)
        return np.concatenate([sink_shares(read(*piece), high[slice(*piece)]) for piece in pieces])

    def _slices(self, name: str) -> Iterator[tuple[int, int]]:
        # What is computed from a piece is float64.
        return slices(self.n, rows_that_fit(self.store[name], _PIECE_BYTES))


def write_sinks(
    store_path: Path,
    out: Path,
    settings: SinkSettings,
) -> None:
    """Write the shares of attention on high-norm tokens as a table of ScoreRow.

    ``variant`` is the rule and whose norms, ``median/last``; shares have the query as features.

    The store has the taps ``attention_summary`` and ``spatial``. The table has no shares of queries
    that the model lacks, nor of heads that give nothing to spatial tokens in any image.
    """
    store = open_store(store_path)
    kinds = usable_queries(store, "sinks", settings.queries)
    if "spatial" not in store:
        raise AnalysisError(
            f"{store.path}: no spatial tokens in this store (it holds {store.held}), whose norms "
            "tell which are high-norm; extract the tap spatial"
        )
    images, entries = shared_entries(store, ["spatial", *(QUERIES[query] for query in kinds)])
    if not len(images):
        raise AnalysisError(
            f"{store.path}: no image has both spatial tokens and attention; extract both of all"
        )
    source = _Source(store, len(images), entries)
    rows: list[ScoreRow] = []
    for position, layer in enumerate(store.layers):
        try:
            if position == 0 or settings.norms == "own":
                high = source.high(position if settings.norms == "own" else -1, settings.rule)
            found = {query: source.shares(query, position, high) for query in kinds}
        except AnalysisError as error:
            raise AnalysisError(f"{store.path}, layer {layer}: {error}") from error
        variant = f"{settings.rule}/{settings.norms}"
        row = score_rows("sinks", store, layer=layer, variant=variant)
        rows += _layer(row, found, high)
    if not any(row.value for row in rows if row.score == IMAGES):
        logger.warning(f"{store.model}: no high-norm tokens in {plural(len(images), 'image')}")
    write_table(out, ScoreRow, rows)


def _layer(
    row: Callable[..., ScoreRow], found: dict[str, Floats], high: Bool
) -> Iterator[ScoreRow]:
    for query, shares in found.items():
        of_query = partial(row, features=f"attn_{query}", score=SHARE)
        counts = np.isfinite(shares).sum(axis=0)
        means = {
            head: float(np.nanmean(shares[:, head])) for head, count in enumerate(counts) if count
        }
        if means:
            n = int(counts[counts > 0].min())
            yield of_query(group="", n=n, value=float(np.mean(list(means.values()))))
        for head, mean in means.items():
            yield of_query(group=str(head), n=int(counts[head]), value=mean)
    for score, values in ((TOKENS, high.mean(axis=1)), (IMAGES, high.any(axis=1))):
        yield row(
            features="spatial", score=score, group="", n=len(high), value=float(values.mean())
        )
