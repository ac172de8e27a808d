"""Settings of the analysis ``knn``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, LearntSettings, TokenSettings
from vitfeat.settings.fields import Count, LayerJobs, Positive, SomeOf


class KnnSettings(TokenSettings, LearntSettings):
    """Classes by weighted votes of the nearest training images, in every layer."""

    datasets: SomeOf[str] = Field((), description="Datasets whose images are classified.")
    neighbours: SomeOf[Count] = Field(
        (10, 20, 100, 200), description="Numbers of neighbours that vote."
    )
    temperature: Annotated[Positive, PRINTED] = Field(
        0.07, description="A vote weighs exp(cosine / temperature)."
    )
    layer_jobs: LayerJobs = False
