"""The table of attention metrics: one row a layer, head and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vitfeat.analyses.attention.norms import PARAMETER
from vitfeat.analyses.attention.summary import Floats
from vitfeat.analyses.rows import AttentionRow
from vitfeat.numerics.accumulate import Counts

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "distance": "image edges",
        "distance_patches": "patches",
        "distance_pixels": "pixels",
        "offset_x": "patches",
        "offset_y": "patches",
        "offset_length": "patches",
        "spatial_to_cls": "share of attention",
        "cls_to_cls": "share of attention",
        "spatial_to_registers": "share of attention",
        "cls_to_registers": "share of attention",
        "deviation_positions": "share of attention",
        "deviation_heads": "share of attention",
        "deviation_heads_all": "share of attention",
        "entropy": "nats",
        "entropy_share": "share of ln(tokens)",
        "n_null": "queries",
        "token_norm": "L2 norm",
        **{f"high_norm_{rule}": "share of tokens" for rule in PARAMETER},
    }
)
"""Unit of each metric that a table can have, in the order of its rows."""


@dataclass(frozen=True)
class Source:
    """What the rows of a table are of."""

    model: str
    dataset: str
    null_rows: str
    offset_null_rows: str


def attention_rows(
    source: Source,
    layer: int,
    means: Mapping[str, Floats],
    deviations: Mapping[str, Floats],
    counts: Mapping[str, Counts],
) -> Iterator[AttentionRow]:
    """Give the rows of one layer, metric by metric as in :data:`UNITS`, head by head.

    Parameters
    ----------
    source
        What they are of.
    layer
        Number of the block.
    means, deviations, counts
        Of each metric over images, (head,) or, for a layer as a whole, (): as
        :class:`~vitfeat.analyses.attention.stream.AttentionAverages` has them.
    """
    nulls = means["n_null"]
    for metric, unit in UNITS.items():
        if metric not in means:
            continue
        null_rows = source.offset_null_rows if metric.startswith("offset_") else source.null_rows
        for head in range(len(means[metric])) if means[metric].ndim else (None,):
            index = () if head is None else (head,)
            yield AttentionRow(
                source.model,
                source.dataset,
                layer,
                head,
                metric,
                unit,
                null_rows,
                None if head is None else float(nulls[head]),
                int(np.broadcast_to(counts[metric], means[metric].shape)[index]),
                float(means[metric][index]),
                float(deviations[metric][index]),
            )
