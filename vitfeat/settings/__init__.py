"""Settings of analyses and tasks, as a checked config gives them.

Each says which taps it needs, so that one pass of a dataset serves all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vitfeat.settings.analyses import (
    AttentionMapSettings,
    AttentionSettings,
    CkaSettings,
    ClusteringSettings,
    ResidualSettings,
    SimilaritySettings,
)
from vitfeat.settings.base import Analysis, Limit, sources
from vitfeat.settings.tasks import (
    KeypointSettings,
    KnnSettings,
    LinearProbeSettings,
    RegionSettings,
    RetrievalSettings,
    SaliencySettings,
    VideoSettings,
)

__all__ = [
    "KINDS",
    "OWN_PASS",
    "TASKS",
    "Analyses",
    "Analysis",
    "CkaSettings",
    "Limit",
    "Taps",
    "sources",
]


@dataclass(frozen=True)
class Analyses:
    """The analyses and tasks that a config asks for; None where it does not."""

    cka: CkaSettings | None = None
    similarity: SimilaritySettings | None = None
    attention: AttentionSettings | None = None
    attention_maps: AttentionMapSettings | None = None
    clustering: ClusteringSettings | None = None
    residual: ResidualSettings | None = None
    regions: RegionSettings | None = None
    saliency: SaliencySettings | None = None
    knn: KnnSettings | None = None
    linear_probe: LinearProbeSettings | None = None
    retrieval: RetrievalSettings | None = None
    video: VideoSettings | None = None
    keypoints: KeypointSettings | None = None

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
    "regions": RegionSettings,
    "saliency": SaliencySettings,
    "knn": KnnSettings,
    "linear_probe": LinearProbeSettings,
    "retrieval": RetrievalSettings,
    "video": VideoSettings,
    "keypoints": KeypointSettings,
}

OWN_PASS = frozenset({"attention_maps"})
"""Those of so few images that their own jobs push them through the models, beside the stores."""

TASKS = ("knn", "linear_probe", "retrieval", "video", "keypoints", "regions", "saliency")
"""Those whose tables have one form and are collected into one, in the order of the figures."""


@dataclass
class Taps:
    """Taps of one pass that serves several purposes, and the images that each is kept for."""

    limits: dict[str, Limit] = field(default_factory=dict)

    def need(self, taps: Mapping[str, Limit]) -> None:
        """Add what one purpose needs: more images win over fewer."""
        for tap, limit in taps.items():
            before = self.limits.get(tap, 0)
            self.limits[tap] = None if before is None or limit is None else max(before, limit)
