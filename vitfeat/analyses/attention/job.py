"""Attention metrics and maps of a store, averaged over its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import groupby
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import BY_CLASS, ROLLOUT, AttentionMaps, write_maps
from vitfeat.analyses.attention.norms import PARAMETER, Rule, high_norm, token_norms
from vitfeat.analyses.attention.rollout import rollout_row
from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.attention.source import attention_of
from vitfeat.analyses.attention.stream import AttentionAverages, StreamingAttention
from vitfeat.analyses.attention.summary import Tokens
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

_ATTENTION = "share of attention"

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "distance": "image edges",
        "distance_patches": "patches",
        "distance_pixels": "pixels",
        "offset_x": "patches",
        "offset_y": "patches",
        "offset_length": "patches",
        "spatial_to_cls": _ATTENTION,
        "cls_to_cls": _ATTENTION,
        "spatial_to_registers": _ATTENTION,
        "cls_to_registers": _ATTENTION,
        "deviation_positions": _ATTENTION,
        "deviation_heads": _ATTENTION,
        "deviation_heads_all": _ATTENTION,
        "entropy": "nats",
        "entropy_share": "share of ln(tokens)",
        "n_null": "queries",
        "token_norm": "L2 norm",
        **{f"high_norm_{rule}": "share of tokens" for rule in PARAMETER},
    }
)
"""Unit of each metric that a table can have, in the order of its rows."""


def write_attention(
    store_path: Path,
    out: Path,
    maps: Path,
    settings: AttentionSettings,
) -> None:
    """Write the table of attention metrics of a store (AttentionRow), and its maps as NetCDF.

    They are made from the attention summaries, or from the attention itself in a store without.
    """
    store = open_store(store_path)
    source = attention_of(store)
    if settings.high_norm and "spatial" not in store:
        raise AnalysisError(
            f"{store_path}: no spatial tokens in this store (it holds "
            f"{store.held}), among which high-norm ones are counted; add spatial "
            "to extraction.taps, or set analyses.attention.high_norm to null"
        )
    if source.patch_size is None:
        logger.warning(
            f"{store.model}: its patches are no squares of whole pixels: no distance in pixels"
        )
    labels = store.labels[source.rows]
    if settings.by_class and not (labels >= 0).any():
        logger.warning(f"{store.model}: no image has a class: no maps by class")
    dataset = store_path.parent.name
    rows: list[AttentionRow] = []
    layers: list[dict[str, NDArray[np.float32]]] = []
    classes: tuple[int, ...] = ()
    for position, pieces in groupby(ahead(source.pieces()), key=lambda piece: piece.position):
        stream = StreamingAttention(
            source.tokens,
            patch_size=source.patch_size,
            null=settings.null_rows,
            offset_null=settings.offset_null_rows,
            by_class=settings.by_class,
        )
        for piece in pieces:
            stream.update(piece.batch, labels[piece.start : piece.stop])
        averages = stream.compute()
        norms = StreamingMoments()
        if settings.high_norm:
            norms = _norms(store, position, settings.high_norm)
        rows += _rows(store, dataset, store.layers[position], averages, norms, settings)
        classes = averages.labels
        # float32, as classes may be many.
        layers.append({name: a.astype(np.float32) for name, a in averages.maps.items()})
    arrays: dict[str, NDArray[Any]] = {
        name: np.stack([layer.pop(name) for layer in layers], axis=int(name.endswith(BY_CLASS)))
        for name in list(layers[0])
    }
    rollout, n_rollout = _rollout(store, source.tokens)
    write_table(out, AttentionRow, rows)
    write_maps(
        maps,
        AttentionMaps(
            model=store.model,
            dataset=dataset,
            n_images=len(labels),
            tokens=source.tokens,
            null_rows=settings.null_rows,
            layers=tuple(store.layers),
            arrays=arrays | rollout,
            classes={label: store.classes.get(label, str(label)) for label in classes},
            n_images_rollout=n_rollout,
        ),
    )


def _rows(
    store: FeatureStore,
    dataset: str,
    layer: int,
    averages: AttentionAverages,
    norms: StreamingMoments,
    settings: AttentionSettings,
) -> Iterator[AttentionRow]:
    """Give the rows of one layer, metric by metric as in :data:`UNITS`, head by head."""
    means = averages.means | norms.means
    deviations = averages.deviations | norms.deviations
    counts = averages.counts | norms.counts
    for metric, unit in UNITS.items():
        if metric not in means:
            continue
        of_offset = metric.startswith("offset_")
        for head in range(len(means[metric])) if means[metric].ndim else (None,):
            index = () if head is None else (head,)
            yield AttentionRow(
                store.model,
                dataset,
                layer,
                head,
                metric,
                unit,
                settings.offset_null_rows if of_offset else settings.null_rows,
                None if head is None else float(means["n_null"][head]),
                int(np.broadcast_to(counts[metric], means[metric].shape)[index]),
                float(means[metric][index]),
                float(deviations[metric][index]),
            )


def _norms(store: FeatureStore, position: int, rule: Rule) -> StreamingMoments:
    """Return the share of high-norm tokens and the mean norm of tokens in one layer."""
    array = store["spatial"]
    moments = StreamingMoments()
    rows = rows_that_fit(array, _PIECE_BYTES)
    read = reader(store, "spatial", position)
    for features in ahead(read(start, stop) for start, stop in slices(array.shape[0], rows)):
        norms = token_norms(features)
        share = high_norm(norms, rule)
        moments.update({"token_norm": norms.mean(axis=(-2, -1)), f"high_norm_{rule}": share})
    return moments


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
        on_grid = rollout_row(attention)[:, tokens.n_prefix :]
        means.update({ROLLOUT: on_grid.reshape(-1, *tokens.grid)})
    return dict(means.compute()), array.shape[0]
