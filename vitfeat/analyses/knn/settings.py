"""Settings of the analysis ``knn``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vitfeat.analyses.settings import (
    Count,
    LayerJobs,
    LearntSettings,
    Limit,
    Positive,
    SomeOf,
    token_taps,
)


class KnnSettings(LearntSettings):
    """Classes by weighted votes of the nearest training images, in every layer."""

    datasets: SomeOf[str] = Field((), description="Datasets whose images are classified.")
    features: SomeOf[Literal["cls", "mean"]] = Field(
        ("cls", "mean"), description="CLS tokens, means of the spatial tokens."
    )
    final_norm: bool = Field(False, description="Whether the model's final norm is applied first.")
    neighbours: SomeOf[Count] = Field(
        (10, 20, 100, 200), description="Numbers of neighbours that vote."
    )
    temperature: Positive = Field(0.07, description="A vote weighs exp(cosine / temperature).")
    layer_jobs: LayerJobs = False

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)
