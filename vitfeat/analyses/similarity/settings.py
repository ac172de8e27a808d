"""Settings of the analysis ``similarity``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings, token_taps
from vitfeat.settings.fields import Count, Seed, Share, SomeOf


class SimilaritySettings(Settings):
    """CKA with confidence intervals, and other measures, of every pair of models."""

    datasets: SomeOf[str] = Field((), description="Datasets to compare on.")
    tokens: SomeOf[Literal["cls", "mean", "spatial", "all"]] = Field(
        ("cls", "spatial"), description="Token kinds, as in cka."
    )
    measures: SomeOf[Literal["cka", "procrustes", "rsa", "mutual_knn", "svcca"]] = Field(
        ("cka", "procrustes", "rsa", "mutual_knn", "svcca"),
        description=(
            "Measures: debiased CKA, Procrustes, representational similarity analysis, mutual "
            "nearest neighbours, SVCCA."
        ),
    )
    layers: Literal["last", "all"] = Field(
        "last",
        description="Layers that are compared: the last ones of each two models, or all with all.",
    )
    neighbours: Count = Field(10, description="Neighbours of an image (mutual_knn).")
    variance: float = Field(
        0.99, gt=0, le=1, description="Share of the variance that is kept (svcca)."
    )
    images: int | None = Field(
        1000, ge=8, description="Images that are compared, spread over the dataset; null takes all."
    )
    resamples: Annotated[int, PRINTED] = Field(
        200,
        ge=0,
        description="Resamples of the images that intervals come from; 0 gives no intervals.",
    )
    confidence: Share = Field(0.95, description="Confidence of the intervals.")
    seed: Annotated[Seed, PRINTED] = Field(0, description="Seed of the resamples.")

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what makes a difference: to measures that are asked for, and intervals if any."""
        unused = {
            *(() if "mutual_knn" in self.measures else ("neighbours",)),
            *(() if "svcca" in self.measures else ("variance",)),
            *(() if self.resamples else ("confidence", "seed")),
        }
        return {key: value for key, value in super().used(keys).items() if key not in unused}

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked token kinds are made from."""
        return token_taps(self.tokens)
