"""Settings of the analyses, as a checked config gives them; the schema describes every key.

Each says which taps it needs, so that one pass of a dataset serves all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vitfeat.store.layout import TOKEN_ARRAYS

Limit = int | tuple[str, ...] | None
"""Images that a tap is kept for: all (None), so many spread over the dataset, or these ids."""


class Analysis(Protocol):
    """What all analyses' settings have."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that it runs on."""

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the taps that it needs, and for how many images."""


def _token_taps(kinds: tuple[str, ...]) -> dict[str, Limit]:
    return {array: None for kind in kinds for array in TOKEN_ARRAYS[kind]}


@dataclass(frozen=True)
class CkaSettings:
    """Settings of the analysis ``cka``."""

    datasets: tuple[str, ...]
    tokens: tuple[str, ...]
    estimators: tuple[str, ...]
    batch_size: int
    seed: int
    without_cls: str

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked token kinds, and what may stand in, are made from."""
        # Which models lack a CLS token is known when they are built, not before.
        stands_in = ("mean",) if "cls" in self.tokens and self.without_cls == "mean" else ()
        return _token_taps((*self.tokens, *stands_in))


@dataclass(frozen=True)
class SimilaritySettings:
    """Settings of the analysis ``similarity``: CKA with intervals, and other measures."""

    datasets: tuple[str, ...]
    tokens: tuple[str, ...]
    measures: tuple[str, ...]
    layers: str
    neighbours: int
    variance: float
    images: int | None
    resamples: int
    confidence: float
    seed: int

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked token kinds are made from."""
        return _token_taps(self.tokens)


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the analysis ``attention``."""

    datasets: tuple[str, ...]
    null_rows: str
    by_class: bool
    high_norm: str | None

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the summaries, and the spatial tokens whose norms are counted."""
        spatial: dict[str, Limit] = {"spatial": None} if self.high_norm else {}
        return {"attention_summary": None, **spatial}


@dataclass(frozen=True)
class AttentionMapSettings:
    """Settings of the analysis ``attention_maps``."""

    datasets: tuple[str, ...]
    images: int | tuple[str, ...]
    positions: tuple[str, ...]
    layer: str | int
    head: str | int
    renormalised: bool
    scale: str
    smooth: bool
    single_maps: bool

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention of the chosen images."""
        return {"attention": self.images}


@dataclass(frozen=True)
class ClusteringSettings:
    """Settings of the analysis ``clustering``."""

    datasets: tuple[str, ...]
    features: tuple[str, ...]
    pattern_layers: str | int | tuple[str | int, ...]
    clusters: int | None
    n_init: int
    seeds: int
    seed: int
    shuffled: bool

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked features are made from."""
        taps = _token_taps(tuple(f for f in self.features if f in TOKEN_ARRAYS))
        patterns: dict[str, Limit] = (
            {"attention_mean": None} if "attention_mean" in self.features else {}
        )
        return {**taps, **patterns}


@dataclass(frozen=True)
class ResidualSettings:
    """Settings of the analysis ``residual``."""

    datasets: tuple[str, ...]
    tokens: tuple[str, ...]
    images: int | None

    def required_taps(self) -> Mapping[str, Limit]:
        """Return norms of all images, and both branches and what they are added to of some."""
        some = ("block_input", "attn_branch", "mlp_branch") if self.tokens else ()
        return {"residual_norms": None, **dict.fromkeys(some, self.images)}


@dataclass(frozen=True)
class Analyses:
    """The analyses that a config asks for; None where it does not."""

    cka: CkaSettings | None = None
    similarity: SimilaritySettings | None = None
    attention: AttentionSettings | None = None
    attention_maps: AttentionMapSettings | None = None
    clustering: ClusteringSettings | None = None
    residual: ResidualSettings | None = None

    def asked(self) -> dict[str, Analysis]:
        """Return those that are asked for, by name."""
        return {name: found for name in KINDS if (found := getattr(self, name)) is not None}


KINDS: Mapping[str, type] = {
    "cka": CkaSettings,
    "similarity": SimilaritySettings,
    "attention": AttentionSettings,
    "attention_maps": AttentionMapSettings,
    "clustering": ClusteringSettings,
    "residual": ResidualSettings,
}


@dataclass
class Taps:
    """Taps of one pass that serves several purposes, and the images that each is kept for."""

    limits: dict[str, Limit] = field(default_factory=dict)

    def need(self, taps: Mapping[str, Limit]) -> None:
        """Add what one purpose needs: more images win over fewer."""
        for tap, limit in taps.items():
            before = self.limits.get(tap, 0)
            self.limits[tap] = limit if before == 0 else _more(before, limit)


def _more(a: Limit, b: Limit) -> Limit:
    """Return the limit that covers both; all images where it cannot be said."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a == b else None
