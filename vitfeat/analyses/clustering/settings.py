"""Settings of the analysis ``clustering``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from vitfeat.analyses.settings import KMeansSettings, Limit, token_taps
from vitfeat.settings.fields import Layers, SomeOf
from vitfeat.store.layout import TOKEN_ARRAYS


class ClusteringSettings(KMeansSettings):
    """k-means of every layer's features against the classes."""

    datasets: SomeOf[str] = Field((), description="Datasets with labels.")
    features: SomeOf[Literal["cls", "mean", "attention_mean"]] = Field(
        ("cls", "mean"),
        description=(
            "What is clustered: CLS tokens, means of the spatial tokens, head-averaged "
            "attention patterns."
        ),
    )
    pattern_layers: Layers = Field(
        "all",
        description=(
            "Layers whose attention patterns are clustered (attention_mean), by name or number."
        ),
    )
    shuffled: bool = Field(
        True, description="Whether scores against shuffled labels are computed too, as a baseline."
    )

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what makes a difference: layers of patterns where patterns are clustered."""
        asked = super().used(keys)
        if "attention_mean" not in self.features:
            asked.pop("pattern_layers", None)
        return asked

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked features are made from."""
        taps = token_taps(tuple(f for f in self.features if f in TOKEN_ARRAYS))
        patterns: dict[str, Limit] = (
            {"attention_mean": None} if "attention_mean" in self.features else {}
        )
        return {**taps, **patterns}
