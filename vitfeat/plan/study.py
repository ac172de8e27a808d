"""What a job of one analysis, dataset and model is about: sizes, for what it will need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vitfeat.config.config import AnySettings, Config
from vitfeat.models.shapes import Shape, guess_shape
from vitfeat.plan.disk import rows_of

UNKNOWN_SIZE = 50_000
"""Images of a dataset, or rows of a table, before they are listed."""


@dataclass(frozen=True)
class Study:
    """One analysis of one model's store, or of a pair's.

    ``layers`` is how many a job is of, where several share them; ``threads`` are 1 until decided.
    """

    config: Config
    analysis: str
    dataset: str
    model: str
    other: str | None = None
    threads: int = 1
    layers: int | None = None

    def settings(self, kind: type[AnySettings]) -> AnySettings:
        """Return the analysis' settings."""
        settings = self.config.analyses[self.analysis]
        assert isinstance(settings, kind)
        return settings

    @cached_property
    def shape(self) -> Shape:
        """The model's sizes, guessed."""
        return guess_shape(self.config.model(self.model))

    @cached_property
    def other_shape(self) -> Shape:
        """The other model's sizes, guessed."""
        assert self.other is not None
        return guess_shape(self.config.model(self.other))

    @property
    def n_layers(self) -> int:
        """Layers that the job is of; all of the model's are guessed."""
        return self.layers or self.shape.depth

    @property
    def n_images(self) -> int:
        """Images of the dataset; a guess before they are listed."""
        return self.images_of(self.dataset)

    @property
    def n_train(self) -> int:
        """Images of the dataset that is learnt from."""
        train: dict[str, str] = getattr(self.config.analyses[self.analysis], "train", {})
        return self.images_of(train[self.dataset])

    @property
    def n_annotated(self) -> int:
        """Rows of the table of what is annotated."""
        kind = self.config.datasets[self.dataset].annotations
        return self._rows(Path(str(kind), f"{self.dataset}.csv"))

    @property
    def enlarged(self) -> float:
        """How many tokens images have over those of the model's own size."""
        return enlarged(self.config, self.dataset, self.model)

    @property
    def node_threads(self) -> int:
        """What a node usually has; one for tiny models, of which several run side by side."""
        return 1 if self.shape.flops_per_image < 1e9 else 8

    def images_of(self, dataset: str) -> int:
        """Return how many images a dataset has; a guess before they are listed."""
        return self._rows(Path(f"{dataset}.csv"))

    def _rows(self, table: Path) -> int:
        n = rows_of(self.config.results / "datasets" / table)
        return UNKNOWN_SIZE if n is None else n


def enlarged(config: Config, dataset: str, model: str) -> float:
    """Return how many tokens images have over those of the model's own size."""
    view = config.view(dataset)
    if view.kind != "dense" or config.model(model).is_imported:
        return 1.0
    side, pixels = view.side
    # Photographs are up to twice as long as they are high.
    aspect = 2.0 if side == "short" else 1.0
    return aspect * (pixels / guess_shape(config.model(model)).image_size) ** 2
