"""A checked config: what is computed of which models and datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.settings import Limit, Settings
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import ViewSettings
from vitfeat.extraction.settings import Extraction
from vitfeat.models.entry import ModelEntry
from vitfeat.store.layout import RAGGED_TAPS

UNLABELLED = frozenset({"flat", "coco", "revisited"})
"""Layouts whose images never have labels; those of a list may or may not."""

# Of images in windows every window has its own.
_OF_ONE_PASS = ("cls", "registers")

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True)
class Config:
    """A checked config.

    ``models`` stand in the order of figures; the ``taps`` of ``extraction`` are asked for beside
    what analyses need; ``remarks`` are what only the jobs can tell, a line each for people.
    """

    results: Path
    weights: Path
    models: tuple[ModelEntry, ...]
    datasets: Mapping[str, DatasetSpec]
    extraction: Extraction
    analyses: Mapping[str, Settings]
    sets: dict[str, tuple[str, ...]]
    # How figures are written, where that is not the default: their files and width.
    figures: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    def settings(self, kind: type[AnySettings]) -> AnySettings | None:
        """Return the settings of an analysis, or None where it is not asked for."""
        return next((s for s in self.analyses.values() if isinstance(s, kind)), None)

    def model(self, model_id: str) -> ModelEntry:
        """Return a model of the config by id."""
        return next(m for m in self.models if m.id == model_id)

    def taps(self, dataset: str) -> list[str]:
        """Return all taps that a dataset's stores need: one pass serves every analysis."""
        return sorted(self._taps(dataset))

    def reads(self, dataset: str) -> bool:
        """Return whether anything that is asked for is made from a dataset."""
        asked = self.analyses.values()
        return bool(self.taps(dataset)) or any(dataset in settings.sources for settings in asked)

    def view(self, dataset: str) -> ViewSettings:
        """Return how a dataset's images become inputs."""
        return self.datasets[dataset].usual_view

    def may_have_labels(self, dataset: str) -> bool:
        """Return whether a dataset's layout gives its images labels, or may give them."""
        return self.datasets[dataset].layout not in UNLABELLED

    def limits(self, dataset: str) -> dict[str, int]:
        """Return the taps that are kept for some images only, and for how many."""
        return {tap: limit for tap, limit in self._taps(dataset).items() if limit is not None}

    def _taps(self, dataset: str) -> dict[str, Limit]:
        asked = self.extraction.taps
        absent = lacking(self.view(dataset), asked)
        taps: dict[str, Limit] = {tap: None for tap in asked if tap not in absent}
        for settings in self.analyses.values():
            if not settings.own_pass and dataset in settings.sources:
                add_taps(taps, settings.required_taps())
        cka, similarity = self.settings(CkaSettings), self.settings(SimilaritySettings)
        if cka is not None and similarity is not None and dataset in similarity.datasets:
            # What stands in for an absent CLS token is said once, with CKA, and holds for both.
            add_taps(taps, cka.but(tokens=similarity.tokens).required_taps())
        return taps


def add_taps(taps: dict[str, Limit], more: Mapping[str, Limit]) -> None:
    """Add what one purpose needs to what a pass keeps: more images win over fewer."""
    for tap, limit in more.items():
        before = taps.get(tap, 0)
        taps[tap] = None if before is None or limit is None else max(before, limit)


def lacking(view: ViewSettings, taps: Iterable[str]) -> list[str]:
    """Return those of some taps that a view does not give."""
    if view.kind != "dense":
        return []
    tiled = _OF_ONE_PASS if view.passes == "tiled" else ()
    return [tap for tap in taps if tap not in RAGGED_TAPS or tap in tiled]
