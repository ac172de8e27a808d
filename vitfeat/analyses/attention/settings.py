"""Settings of the analysis ``attention``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings
from vitfeat.settings.fields import SomeOf

if TYPE_CHECKING:
    from vitfeat.config.config import Config


class AttentionSettings(Settings):
    """Attention metrics of every layer and head, and maps averaged over images."""

    datasets: SomeOf[str] = Field((), description="Datasets to run on.")
    null_rows: Annotated[Literal["zero", "exclude"], PRINTED] = Field(
        "zero",
        description=(
            "Queries that attend to no spatial token, in distances and maps: a row of zeros "
            "(zero) or left out (exclude)."
        ),
    )
    offset_null_rows: Annotated[Literal["zero", "exclude"], PRINTED] = Field(
        "exclude", description="The same in offsets, of which such queries have none."
    )
    by_class: bool = Field(True, description="Whether maps are averaged by class too.")
    high_norm: Literal["absolute", "median", "mad"] | None = Field(
        "median",
        description=(
            "Rule by which spatial tokens count as high-norm: absolute, median or mad; null "
            "leaves them out."
        ),
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the summaries, and the spatial tokens whose norms are counted."""
        spatial: dict[str, Limit] = {"spatial": None} if self.high_norm else {}
        return {"attention_summary": None, **spatial}


def draws_classes(config: Config) -> bool:
    """Return whether classes are compared: where some dataset may have them."""
    settings = config.settings(AttentionSettings)
    if settings is None or not settings.by_class:
        return False
    return any(map(config.may_have_labels, settings.datasets))
