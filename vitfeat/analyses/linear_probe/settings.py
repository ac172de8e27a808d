"""Settings of the analysis ``linear_probe``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, LearntSettings, TokenSettings
from vitfeat.settings.fields import LayerJobs, Positive, Seed, Share, SomeOf


class LinearProbeSettings(TokenSettings, LearntSettings):
    """Logistic regression on the features of every layer."""

    datasets: SomeOf[str] = Field((), description="Datasets whose images are classified.")
    regularisation: Annotated[SomeOf[Positive], PRINTED] = Field(
        (0.0001, 0.001, 0.01, 0.1),
        description=(
            "Strengths of the penalty that are tried; one is chosen on a part of the training "
            "images."
        ),
    )
    validation: Annotated[Share, PRINTED] = Field(
        0.2, description="Share of the training images that the penalty is chosen on."
    )
    seed: Annotated[Seed, PRINTED] = Field(0, description="Seed of the choice of these images.")
    layer_jobs: LayerJobs = False

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what makes a difference: with one penalty no part of the images is set aside."""
        asked = super().used(keys)
        if len(self.regularisation) == 1:
            asked = {key: v for key, v in asked.items() if key not in ("validation", "seed")}
        return asked
