"""The summaries of attention that all metrics are made of, with their shapes and values checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]

Null = Literal["zero", "exclude"]


@dataclass(frozen=True)
class Tokens:
    """How a model's tokens are ordered: CLS, registers, then the grid row by row."""

    grid: tuple[int, int]
    has_cls: bool = True
    n_registers: int = 0

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the grid."""
        return int(self.has_cls) + self.n_registers

    @property
    def n_spatial(self) -> int:
        """Number Q of tokens of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def n_tokens(self) -> int:
        """Number T of all tokens."""
        return self.n_prefix + self.n_spatial

    @property
    def registers(self) -> slice:
        """Where the registers stand among all tokens."""
        return slice(int(self.has_cls), self.n_prefix)


class AttentionSummary:
    """The summaries of some attention.

    Parameters
    ----------
    arrays
        By name, as the array group ``attention_summary`` of a store and
        ``vitfeat.extraction.summary.summarise`` give them: ``spatial_query`` (..., head, key),
        ``spatial_query_renormalised`` (..., head, y, x), ``aligned`` (..., head, dy, dx),
        ``n_null`` and ``entropy`` (..., head); ``prefix_query`` (..., head, prefix, key) where
        there are prefix tokens, ``deviation_positions`` (..., head) of more than one position,
        ``deviation_heads`` and ``deviation_heads_all`` (...) of more than one head. They are not
        copied and never changed; others are ignored.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], tokens: Tokens) -> None:
        if "entropy" not in arrays or not np.ndim(arrays["entropy"]):
            raise AnalysisError(
                "attention summaries lack 'entropy' (..., head): give all summaries of a store"
            )
        *lead, heads = arrays["entropy"].shape
        shapes = self.shapes(heads, tokens)
        for name, shape in shapes.items():
            if name not in arrays:
                raise AnalysisError(
                    f"attention summaries lack {name!r}: give all summaries of a store"
                )
            if arrays[name].shape != (*lead, *shape):
                raise AnalysisError(
                    f"attention summary {name!r} has shape {arrays[name].shape}, expected "
                    f"{(*lead, *shape)}: give the grid, CLS and registers of its model"
                )
            # The sum is finite only if all are: they are shares, deviations and counts.
            if not np.isfinite(arrays[name].sum()):
                raise AnalysisError(
                    f"attention summary {name!r} holds values that are not finite: extract the "
                    "model's features anew"
                )
        self.arrays = {name: arrays[name] for name in shapes}
        self.tokens = tokens

    @staticmethod
    def shapes(heads: int, tokens: Tokens) -> dict[str, tuple[int, ...]]:
        """Return the summaries that exist for some heads and tokens, with their last dimensions."""
        rows, columns = tokens.grid
        shapes: dict[str, tuple[int, ...]] = {
            "spatial_query": (heads, tokens.n_tokens),
            "spatial_query_renormalised": (heads, rows, columns),
            "aligned": (heads, 2 * rows - 1, 2 * columns - 1),
            "n_null": (heads,),
            "entropy": (heads,),
        }
        if tokens.n_prefix:
            shapes["prefix_query"] = (heads, tokens.n_prefix, tokens.n_tokens)
        if tokens.n_spatial > 1:
            shapes["deviation_positions"] = (heads,)
        if heads > 1:
            shapes |= {"deviation_heads": (), "deviation_heads_all": ()}
        return shapes

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array by name."""
        return self.arrays[name]

    def share_counted(self) -> Floats:
        """Share of spatial queries that attend to some spatial token, (..., head)."""
        return np.asarray(1 - self["n_null"].astype(np.float64) / self.tokens.n_spatial)

    def per_counted(self, means: NDArray[Any], null: Null) -> NDArray[Any]:
        """Turn means over spatial queries into means over those that count.

        `means` are (..., head) or (..., head, y, x). With ``zero`` all queries count and `means` is
        returned itself, with ``exclude`` those that attend to some spatial token: NaN of a head
        without any.
        """
        if null == "zero":
            return means
        share = self.share_counted()
        share = np.where(share > 0, share, np.nan)
        return means / share.reshape(*share.shape, *(1,) * (means.ndim - share.ndim))
