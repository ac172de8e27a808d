"""Settings of the analysis ``retrieval``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vitfeat.analyses.settings import Count, Limit, Settings, SomeOf, token_taps


class RetrievalSettings(Settings):
    """Retrieval of images of the same landmark: revisited Oxford and Paris."""

    datasets: SomeOf[str] = Field((), description="Datasets of the layout revisited.")
    features: SomeOf[Literal["cls", "mean"]] = Field(
        ("cls", "mean"), description="CLS tokens, means of the spatial tokens."
    )
    final_norm: bool = Field(False, description="Whether the model's final norm is applied first.")
    ranks: SomeOf[Count] = Field((1, 5, 10), description="Ranks of mean precision.")

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)
