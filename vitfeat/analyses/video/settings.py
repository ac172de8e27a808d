"""Settings of the analysis ``video``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings
from vitfeat.settings.fields import Count, Positive, SomeOf


class VideoSettings(Settings):
    """Objects of a video's first frame followed through the others: DAVIS."""

    datasets: SomeOf[str] = Field((), description="Datasets of the layout davis.")
    context: Annotated[int, PRINTED] = Field(
        7, ge=0, description="Frames before the current one that labels come from beside the first."
    )
    neighbourhood: Annotated[Count, PRINTED] = Field(
        12,
        description=(
            "Tokens around a token, up and down and to each side, that it may be matched to."
        ),
    )
    top: Annotated[Count, PRINTED] = Field(5, description="Matches of a token that count.")
    temperature: Annotated[Positive, PRINTED] = Field(
        0.1, description="A match weighs exp(cosine / temperature)."
    )
    normalise: Annotated[Literal["none", "paper"], PRINTED] = Field(
        "none",
        description=(
            "What becomes of an object's soft mask before the largest wins: none, or paper, "
            "scaled to reach from 0 to 1 over the frame."
        ),
    )
    objects: Annotated[Literal["first_mask", "official"], PRINTED] = Field(
        "first_mask",
        description=(
            "Which objects are scored: those with a pixel in the first mask, or official, as "
            "the official evaluation: all numbers up to the highest one in it."
        ),
    )
    masks: Literal["none", "first", "q1", "middle", "q3", "last", "all"] = Field(
        "last", description="Layers whose masks are written as indexed PNG files, by name."
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the tokens of every frame."""
        return {"spatial": None}
