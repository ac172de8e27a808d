"""Settings of the analysis ``regions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, KMeansSettings, Limit
from vitfeat.settings.fields import Masks, SomeOf


class RegionSettings(KMeansSettings):
    """k-means of features pooled under annotated masks, against the masks' categories."""

    datasets: SomeOf[str] = Field((), description="Datasets with annotated regions.")
    masks: Annotated[Masks, PRINTED] = Field(
        "coverage",
        description=(
            "How a mask weighs tokens: by the share of their area (coverage), or as the "
            "paper's code does (paper)."
        ),
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the features of every region."""
        return {"regions": None}
