"""Settings of the analysis ``keypoints``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings
from vitfeat.settings.fields import Positive, Seed, SomeOf


class KeypointSettings(Settings):
    """Keypoints of one image found in another: SPair-71k."""

    datasets: SomeOf[str] = Field((), description="Datasets of the layout spair.")
    alphas: SomeOf[Positive] = Field(
        (0.1, 0.05, 0.01),
        description=(
            "Distances that count as found, as shares of the larger side of the target's box."
        ),
    )
    pairs: Annotated[int | None, PRINTED] = Field(
        None, ge=1, description="Pairs of each category, drawn without replacement; null takes all."
    )
    seed: Annotated[Seed, PRINTED] = Field(0, description="Seed of the drawing.")

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what makes a difference: the seed where pairs are drawn."""
        asked = super().used(keys)
        if self.pairs is None:
            asked.pop("seed", None)
        return asked

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the tokens of every image."""
        return {"spatial": None}
