"""Attention metrics and maps of a store, averaged over its images."""

from __future__ import annotations

import logging
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import (
    BY_CLASS,
    CLASS_DEVIATION,
    ROLLOUT,
    AttentionMaps,
    write_maps,
)
from vitfeat.analyses.attention.norms import Rule, high_norm, token_norms
from vitfeat.analyses.attention.rollout import cls_rollout, rollout_row
from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.attention.stream import AttentionAverages, StreamingAttention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention.table import Source, attention_rows
from vitfeat.analyses.attention_maps.source import attention_of
from vitfeat.analyses.rows import AttentionRow
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import ahead, reader, rows_that_fit, slices
from vitfeat.numerics.accumulate import StreamingMeans, StreamingMoments
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, read_rows
from vitfeat.tables import write_table

logger = logging.getLogger(__name__)

# Bytes that are read at once, of all arrays together; there are three such pieces in memory.
_PIECE_BYTES = 64 * 2**20


def write_attention(
    store_path: Path,
    out: Path,
    maps: Path,
    settings: AttentionSettings,
) -> None:
    """Write the table of attention metrics of a store, and its maps averaged over images.

    They are made from the attention summaries, or from the attention itself in a store without.

    Parameters
    ----------
    store_path
        The store.
    out
        The table to write, of AttentionRow.
    maps
        The NetCDF file to write.
    settings
        What becomes of queries that attend to no spatial token, whether maps are averaged by class
        too, and which spatial tokens count as high-norm.

    Raises
    ------
    AnalysisError
        The store lacks what the metrics are made from.
    StoreError
        It is damaged.
    """
    store = open_store(store_path)
    made_from = attention_of(store)
    if settings.high_norm and "spatial" not in store:
        raise AnalysisError(
            f"{store_path}: no spatial tokens in this store (it holds "
            f"{store.held}), among which high-norm ones are counted; add spatial "
            "to extraction.taps, or set analyses.attention.high_norm to null"
        )
    if made_from.patch_size is None:
        logger.warning(
            f"{store.model}: its patches are no squares of whole pixels: no distance in pixels"
        )
    labels = store.labels[made_from.rows]
    if settings.by_class and not (labels >= 0).any():
        logger.warning(f"{store.model}: no image has a class: no maps by class")
    nulls = settings.null_rows, settings.offset_null_rows
    source = Source(store.model, store_path.parent.name, *nulls)
    rows: list[AttentionRow] = []
    arrays: dict[str, NDArray[Any]] = {}
    classes: tuple[int, ...] = ()
    for position, pieces in groupby(ahead(made_from.pieces()), key=lambda piece: piece.position):
        stream = StreamingAttention(
            made_from.tokens,
            patch_size=made_from.patch_size,
            null=settings.null_rows,
            offset_null=settings.offset_null_rows,
            by_class=settings.by_class,
        )
        for piece in pieces:
            stream.update(made_from.batch(piece), labels[piece.start : piece.stop])
        found = stream.compute()
        norms = StreamingMoments()
        if settings.high_norm:
            norms = _norms(store, position, settings.high_norm)
        rows += attention_rows(
            source,
            store.layers[position],
            found.means | norms.means,
            found.deviations | norms.deviations,
            found.counts | norms.counts,
        )
        classes = found.labels
        _keep(arrays, found, position, len(store.layers))
    arrays_of_rollout, n_rollout = _rollout(store, made_from.tokens)
    write_table(out, AttentionRow, rows)
    write_maps(
        maps,
        AttentionMaps(
            model=store.model,
            dataset=source.dataset,
            n_images=len(labels),
            tokens=made_from.tokens,
            null_rows=settings.null_rows,
            layers=tuple(store.layers),
            arrays=arrays | arrays_of_rollout,
            classes={label: store.classes.get(label, str(label)) for label in classes},
            n_images_rollout=n_rollout,
        ),
    )


def _keep(
    arrays: dict[str, NDArray[Any]], found: AttentionAverages, position: int, n_layers: int
) -> None:
    """Put the maps of one layer among those of all; float32, since classes may be many."""
    by_class = {f"{name}{BY_CLASS}": values for name, values in found.class_maps.items()}
    deviations = {
        f"{name}{CLASS_DEVIATION}": values for name, values in found.class_deviations.items()
    }
    for name, values in (found.maps | by_class | deviations).items():
        axis = int(name in by_class)
        if name not in arrays:
            shape = (*values.shape[:axis], n_layers, *values.shape[axis:])
            arrays[name] = np.empty(shape, dtype=np.float32)
        arrays[name][(slice(None),) * axis + (position,)] = values


def _norms(store: FeatureStore, position: int, rule: Rule) -> StreamingMoments:
    """Return the share of high-norm tokens and the mean norm of tokens in one layer."""
    array = store["spatial"]
    found = StreamingMoments()
    rows = rows_that_fit(array, _PIECE_BYTES)
    read = reader(store, "spatial", position)
    for features in ahead(read(start, stop) for start, stop in slices(array.shape[0], rows)):
        norms = token_norms(features)
        found.update(
            {
                "token_norm": norms.mean(axis=(-2, -1)),
                f"high_norm_{rule}": high_norm(norms, rule),
            }
        )
    return found


def _rollout(store: FeatureStore, tokens: Tokens) -> tuple[dict[str, NDArray[Any]], int]:
    """Return the mean rollout of the CLS token over the images whose attention is stored.

    There is none without a CLS token, or where a layer before the last one is not stored.
    """
    whole = store.layers == list(range(len(store.layers)))
    if "attention" not in store or not tokens.has_cls or not whole:
        return {}, 0
    array = store["attention"]
    rows = max(1, _PIECE_BYTES // (prod(array.shape[1:]) * array.dtype.itemsize))
    means = StreamingMeans()
    for attention in ahead(
        read_rows(store, "attention", start, stop) for start, stop in slices(array.shape[0], rows)
    ):
        means.update({ROLLOUT: cls_rollout(rollout_row(attention, query=0), tokens)})
    return dict(means.compute()), array.shape[0]
