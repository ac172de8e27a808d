"""Settings of the analysis ``sinks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vitfeat.analyses.settings import Limit, Settings
from vitfeat.settings.fields import SomeOf


class SinkSettings(Settings):
    """Attention of every layer and head on high-norm spatial tokens."""

    rule: Literal["absolute", "median", "mad"] = Field(
        "median",
        description="Rule by which spatial tokens count as high-norm: absolute, median or mad.",
    )
    norms: Literal["last", "own"] = Field(
        "last",
        description=(
            "Whose norms tell them: those of the last stored layer (last), or of each layer (own)."
        ),
    )
    queries: SomeOf[Literal["cls", "mean"]] = Field(
        ("cls", "mean"),
        description="Whose attention: the CLS token's, the mean of the spatial tokens'.",
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention rows of the queries, and the tokens whose norms are looked at."""
        return {"attention_summary": None, "spatial": None}
