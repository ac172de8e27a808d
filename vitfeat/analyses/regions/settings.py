"""Settings of the analysis ``regions``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vitfeat.analyses.settings import Count, Limit, Masks, Seed, Settings, SomeOf


class RegionSettings(Settings):
    """k-means of features pooled under annotated masks, against the masks' categories."""

    datasets: SomeOf[str] = Field((), description="Datasets with annotated regions.")
    masks: Masks = Field(
        "coverage",
        description=(
            "How a mask weighs tokens: by the share of their area (coverage), or as the "
            "paper's code does (paper)."
        ),
    )
    clusters: int | None = Field(
        None, ge=2, description="Number of clusters; null takes the number of categories."
    )
    n_init: Count = Field(10, description="Initialisations of k-means; the best is kept.")
    seeds: Count = Field(3, description="Seeds that scores are averaged over.")
    seed: Seed = Field(0, description="The first seed.")

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the features of every region."""
        return {"regions": None}
