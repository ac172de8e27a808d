"""Settings of the tasks, as a checked config gives them; the schema describes every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitfeat.settings.base import Limit, token_taps


@dataclass(frozen=True)
class RegionSettings:
    """Settings of ``regions``: k-means of features pooled under annotated masks."""

    datasets: tuple[str, ...]
    masks: str
    clusters: int | None
    n_init: int
    seeds: int
    seed: int

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the features of every region."""
        return {"regions": None}


@dataclass(frozen=True)
class SaliencySettings:
    """Settings of ``saliency``: the most attended tokens against annotated masks."""

    datasets: tuple[str, ...]
    mass: float
    queries: tuple[str, ...]
    masks: str
    images: int | tuple[str, ...]

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention rows of the asked queries."""
        taps: dict[str, Limit] = {}
        if {"cls", "mean"} & set(self.queries):
            taps["attention_summary"] = None
        if "centre" in self.queries:
            taps["attention_centre"] = None
        return taps


@dataclass(frozen=True)
class KnnSettings:
    """Settings of ``knn``: classes by weighted votes of the nearest training images."""

    datasets: tuple[str, ...]
    train: Mapping[str, str]
    features: tuple[str, ...]
    final_norm: bool
    neighbours: tuple[int, ...]
    temperature: float
    layer_jobs: bool

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)


@dataclass(frozen=True)
class LinearProbeSettings:
    """Settings of ``linear_probe``: logistic regression on every layer's features."""

    datasets: tuple[str, ...]
    train: Mapping[str, str]
    features: tuple[str, ...]
    final_norm: bool
    regularisation: tuple[float, ...]
    validation: float
    seed: int
    layer_jobs: bool

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of ``retrieval``: images of the same landmark."""

    datasets: tuple[str, ...]
    features: tuple[str, ...]
    final_norm: bool
    ranks: tuple[int, ...]

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)


@dataclass(frozen=True)
class VideoSettings:
    """Settings of ``video``: objects of the first frame, followed through the others."""

    datasets: tuple[str, ...]
    context: int
    neighbourhood: int
    top: int
    temperature: float
    normalise: str
    objects: str
    masks: str

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the tokens of every frame."""
        return {"spatial": None}


@dataclass(frozen=True)
class KeypointSettings:
    """Settings of ``keypoints``: points of one image found in another."""

    datasets: tuple[str, ...]
    alphas: tuple[float, ...]
    pairs: int | None
    seed: int

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the tokens of every image."""
        return {"spatial": None}
