"""The attention metrics of one image and layer straight from its attention: loops in float64.

Written from the definitions in issue 4 and not from the summaries, which are what is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def deviation(values: Iterable[float]) -> float:
    """Standard deviation, ddof 1."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


class Reference:
    """Attention (head, query, key) of CLS, registers and a grid, after the softmax."""

    def __init__(
        self, attention: NDArray[Any], grid: tuple[int, int], has_cls: bool, n_registers: int
    ) -> None:
        self.a = attention.astype(np.float64)
        self.grid, self.has_cls, self.n_registers = grid, has_cls, n_registers
        self.heads, self.tokens = self.a.shape[:2]
        self.prefix = int(has_cls) + n_registers
        self.spatial = range(self.prefix, self.tokens)
        self.registers = range(int(has_cls), self.prefix)

    def place(self, token: int) -> tuple[int, int]:
        """Row and column of a spatial token."""
        return divmod(token - self.prefix, self.grid[1])

    def is_null(self, h: int, q: int) -> bool:
        return all(self.a[h, q, k] == 0 for k in self.spatial)

    def queries(self, h: int, null: str) -> list[int]:
        """The spatial queries that count."""
        return [q for q in self.spatial if null == "zero" or not self.is_null(h, q)]

    def share(self, h: int, q: int, k: int) -> float:
        """The renormalised attention; zero in a null row."""
        if self.is_null(h, q):
            return 0.0
        return float(self.a[h, q, k] / math.fsum(self.a[h, q, j] for j in self.spatial))

    def pairs(self, h: int, null: str) -> Iterator[tuple[int, int, float]]:
        """Rows and columns from query to key, and attention over the number of queries."""
        queries = self.queries(h, null)
        for q in queries:
            for k in self.spatial:
                (y, x), (to_y, to_x) = self.place(q), self.place(k)
                yield to_y - y, to_x - x, self.share(h, q, k) / len(queries)

    def over_heads(self, one: Any) -> Array:
        return np.array([one(h) for h in range(self.heads)], dtype=np.float64)

    def lengths(self, unit: str, patch_size: int) -> tuple[float, float]:
        """Length of one row and of one column."""
        if unit == "image":
            rows, columns = self.grid
            return (1 / (rows - 1) if rows > 1 else 0, 1 / (columns - 1) if columns > 1 else 0)
        return (patch_size, patch_size) if unit == "pixels" else (1, 1)

    def distance(self, unit: str, null: str, patch_size: int = 1) -> Array:
        row, column = self.lengths(unit, patch_size)

        def one(h: int) -> float:
            if not self.queries(h, null):
                return math.nan
            return math.fsum(
                share * math.sqrt((dy * row) ** 2 + (dx * column) ** 2)
                for dy, dx, share in self.pairs(h, null)
            )

        return self.over_heads(one)

    def offset(self, unit: str, null: str, patch_size: int = 1) -> tuple[Array, Array]:
        """x and y."""
        row, column = self.lengths(unit, patch_size)

        def one(h: int, axis: int) -> float:
            if not self.queries(h, null):
                return math.nan
            return math.fsum(
                share * (dx * column if axis else dy * row) for dy, dx, share in self.pairs(h, null)
            )

        return self.over_heads(lambda h: one(h, 1)), self.over_heads(lambda h: one(h, 0))

    def metrics(self, null: str, patch_size: int, offset_null: str = "exclude") -> dict[str, Array]:
        a, n = self.a, len(self.spatial)
        x, y = self.offset("patches", offset_null)
        found = {
            "distance": self.distance("image", null),
            "distance_patches": self.distance("patches", null),
            "distance_pixels": self.distance("pixels", null, patch_size),
            "offset_x": x,
            "offset_y": y,
            "entropy": self.over_heads(
                lambda h: (
                    -math.fsum(
                        a[h, q, k] * math.log(a[h, q, k])
                        for q in self.spatial
                        for k in range(self.tokens)
                        if a[h, q, k] > 0
                    )
                    / n
                )
            ),
            "n_null": self.over_heads(lambda h: sum(self.is_null(h, q) for q in self.spatial)),
        }
        if self.tokens > 1:
            # By the logarithm to the base of the number of tokens.
            found["entropy_share"] = self.over_heads(
                lambda h: (
                    -math.fsum(
                        a[h, q, k] * math.log(a[h, q, k], self.tokens)
                        for q in self.spatial
                        for k in range(self.tokens)
                        if a[h, q, k] > 0
                    )
                    / n
                )
            )
        if self.has_cls:
            found["spatial_to_cls"] = self.over_heads(
                lambda h: math.fsum(a[h, q, 0] for q in self.spatial) / n
            )
            found["cls_to_cls"] = self.over_heads(lambda h: a[h, 0, 0])
        if self.n_registers:
            found["spatial_to_registers"] = self.over_heads(
                lambda h: math.fsum(a[h, q, k] for q in self.spatial for k in self.registers) / n
            )
        if self.n_registers and self.has_cls:
            found["cls_to_registers"] = self.over_heads(
                lambda h: math.fsum(a[h, 0, k] for k in self.registers)
            )
        if n > 1:
            found["deviation_positions"] = self.over_heads(
                lambda h: (
                    math.fsum(deviation(a[h, q, k] for q in self.spatial) for k in self.spatial) / n
                )
            )
        if self.heads > 1:
            for name, chosen in (("", self.spatial), ("_all", range(self.tokens))):
                pairs = [(q, k) for q in chosen for k in chosen]
                found[f"deviation_heads{name}"] = np.array(
                    math.fsum(deviation(a[h, q, k] for h in range(self.heads)) for q, k in pairs)
                    / len(pairs)
                )
        return found

    def token_maps(self, null: str) -> dict[str, Array]:
        def mean(queries: range) -> Array:
            found = np.zeros((self.heads, self.tokens))
            for h in range(self.heads):
                for k in range(self.tokens):
                    found[h, k] = math.fsum(self.a[h, q, k] for q in queries) / len(queries)
            return found

        renormalised = np.full((self.heads, *self.grid), np.nan)
        for h in range(self.heads):
            queries = self.queries(h, null)
            for k in self.spatial if queries else ():
                total = math.fsum(self.share(h, q, k) for q in queries)
                renormalised[h][self.place(k)] = total / len(queries)
        found = {
            "all_queries": mean(range(self.tokens)),
            "spatial_queries": mean(self.spatial),
            "spatial_queries_renormalised": renormalised,
        }
        if self.has_cls:
            found["cls_query"] = mean(range(1))
        return found

    def aligned(self, null: str) -> Array:
        rows, columns = self.grid
        found = np.zeros((self.heads, 2 * rows - 1, 2 * columns - 1))
        for h in range(self.heads):
            if not self.queries(h, null):
                found[h] = np.nan
            for dy, dx, share in self.pairs(h, null):
                found[h, dy + rows - 1, dx + columns - 1] += share
        return found

    def aligned_by_coverage(self) -> Array:
        """Mean over the pairs of tokens that are an offset apart, query by query."""
        rows, columns = self.grid
        found = np.zeros((self.heads, 2 * rows - 1, 2 * columns - 1))
        for h in range(self.heads):
            for dy in range(1 - rows, rows):
                for dx in range(1 - columns, columns):
                    shares = [
                        self.share(h, q, q + dy * columns + dx)
                        for q in self.spatial
                        if 0 <= self.place(q)[0] + dy < rows
                        and 0 <= self.place(q)[1] + dx < columns
                    ]
                    mean = math.fsum(shares) / len(shares)
                    found[h, dy + rows - 1, dx + columns - 1] = mean
        return found


def rollout(attention: NDArray[Any]) -> Array:
    """Rollout of (layer, head, query, key) as a sum over paths, layer upon layer."""
    layers, heads, tokens, _ = attention.shape
    flow = [[float(q == k) for k in range(tokens)] for q in range(tokens)]
    for layer in range(layers):
        step = []
        for q in range(tokens):
            row = [
                0.5 * math.fsum(float(attention[layer, h, q, k]) for h in range(heads)) / heads
                + 0.5 * (q == k)
                for k in range(tokens)
            ]
            step.append([value / math.fsum(row) for value in row])
        flow = [
            [math.fsum(step[q][via] * flow[via][k] for via in range(tokens)) for k in range(tokens)]
            for q in range(tokens)
        ]
    return np.array(flow)
