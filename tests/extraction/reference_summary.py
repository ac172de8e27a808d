"""The attention summaries from their formulas: loops, float64, one image and layer at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _deviation(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def reference_summary(
    attention: NDArray[Any], n_prefix: int, grid: tuple[int, int]
) -> dict[str, Array]:
    """Summarise (head, query, key)."""
    a = attention.astype(np.float64)
    heads, tokens, _ = a.shape
    rows, columns = grid
    spatial = range(n_prefix, tokens)
    n = rows * columns
    mean = np.zeros((heads, tokens))
    renormalised = np.zeros((heads, rows, columns))
    aligned = np.zeros((heads, 2 * rows - 1, 2 * columns - 1))
    nulls, entropy = np.zeros(heads), np.zeros(heads)
    for h in range(heads):
        for q in spatial:
            left = math.fsum(a[h, q, k] for k in spatial)
            nulls[h] += left == 0
            for k in range(tokens):
                mean[h, k] += a[h, q, k] / n
                if a[h, q, k] > 0:
                    entropy[h] -= a[h, q, k] * math.log(a[h, q, k]) / n
            if left == 0:
                continue
            query_y, query_x = divmod(q - n_prefix, columns)
            for k in spatial:
                y, x = divmod(k - n_prefix, columns)
                share = a[h, q, k] / left / n
                renormalised[h, y, x] += share
                # The query goes to the centre, (rows - 1, columns - 1).
                aligned[h, y - query_y + rows - 1, x - query_x + columns - 1] += share
    summary = {
        "spatial_query": mean,
        "spatial_query_renormalised": renormalised,
        "aligned": aligned,
        "n_null": nulls,
        "entropy": entropy,
    }
    if n_prefix:
        summary["prefix_query"] = a[:, :n_prefix]
    if n > 1:
        summary["deviation_positions"] = np.array(
            [
                math.fsum(_deviation([a[h, q, k] for q in spatial]) for k in spatial) / n
                for h in range(heads)
            ]
        )
    if heads > 1:
        for name, chosen in (("", spatial), ("_all", range(tokens))):
            deviations = [
                _deviation([a[h, q, k] for h in range(heads)]) for q in chosen for k in chosen
            ]
            mean_deviation = math.fsum(deviations) / len(deviations)
            summary[f"deviation_heads{name}"] = np.array(mean_deviation)
    return summary
