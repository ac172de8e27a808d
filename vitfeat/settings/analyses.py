"""Settings of the analyses, as a checked config gives them; the schema describes every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitfeat.settings.base import Limit, token_taps
from vitfeat.store.layout import TOKEN_ARRAYS


@dataclass(frozen=True)
class CkaSettings:
    """Settings of the analysis ``cka``."""

    datasets: tuple[str, ...]
    tokens: tuple[str, ...]
    estimators: tuple[str, ...]
    batch_size: int
    batch_order: str
    seed: int
    without_cls: str

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked token kinds, and what may stand in, are made from."""
        # Which models lack a CLS token is known when they are built, not before.
        stands_in = ("mean",) if "cls" in self.tokens and self.without_cls == "mean" else ()
        return token_taps((*self.tokens, *stands_in))


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
        return token_taps(self.tokens)


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the analysis ``attention``."""

    datasets: tuple[str, ...]
    null_rows: str
    offset_null_rows: str
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
    layers: str | int | tuple[str | int, ...]
    layer: str | int
    head: str | int
    renormalised: bool
    scale: str
    percentile: float
    smooth: bool
    single_maps: bool

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention of the chosen images, which are all that its own pass is of."""
        return {"attention": None}


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
        taps = token_taps(tuple(f for f in self.features if f in TOKEN_ARRAYS))
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
