"""Settings of the analysis ``saliency``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings
from vitfeat.settings.fields import Images, Masks, Share, SomeOf


class SaliencySettings(Settings):
    """The most attended tokens of every head against annotated masks."""

    datasets: SomeOf[str] = Field((), description="Datasets with annotated regions.")
    mass: Annotated[Share, PRINTED] = Field(
        0.6, description="Share of the attention that the kept tokens have."
    )
    queries: SomeOf[Literal["cls", "mean", "centre"]] = Field(
        ("cls", "mean", "centre"),
        description=(
            "Whose attention: the CLS token's, the mean of the spatial tokens', the centre token's."
        ),
    )
    masks: Annotated[Masks, PRINTED] = Field(
        "coverage",
        description=(
            "Which tokens are foreground: half covered or more (coverage), or as the paper's "
            "code does (paper)."
        ),
    )
    images: Images = Field(
        4,
        description=(
            "How many images the figure of each model shows, spread over the dataset, or a "
            "list of their ids."
        ),
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention rows of the asked queries."""
        taps: dict[str, Limit] = {}
        if {"cls", "mean"} & set(self.queries):
            taps["attention_summary"] = None
        if "centre" in self.queries:
            taps["attention_centre"] = None
        return taps
