"""Settings of the analysis ``attention_maps``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from vitfeat.analyses.settings import Limit, Settings
from vitfeat.settings.fields import Images, Layer, Seed, ShownLayers, SomeOf, words

SHOWN = ("positions", "layers", "layer", "head", "renormalised", "scale", "percentile", "smooth")
"""Settings that say which maps of an image are drawn, and how."""


class AttentionMapSettings(Settings):
    """Attention maps of chosen images, over the image that the model saw."""

    own_pass: ClassVar[bool] = True

    datasets: SomeOf[str] = Field((), description="Datasets to take images from.")
    images: Images = Field(
        3, description="How many images, spread over the dataset, or a list of their ids."
    )
    positions: SomeOf[
        Annotated[
            str,
            StringConstraints(
                pattern=r"^(cls|top|left|centre|right|bottom|mean|diagonal|[0-9]+,[0-9]+)$"
            ),
            words(
                "cls, top, left, centre, right, bottom, mean, diagonal, or a token's ROW,COLUMN "
                "such as 3,4"
            ),
        ]
    ] = Field(
        ("cls", "top", "left", "centre", "right", "bottom", "mean"),
        description=(
            "Queries whose maps are drawn, the first in the figure head x layer: cls, top, "
            "left, centre, right, bottom, mean (of spatial queries), diagonal, or ROW,COLUMN."
        ),
    )
    layers: ShownLayers = Field(
        "spread",
        description=(
            "Layers that the figures position x layer and head x layer show, by name or "
            "number; spread: up to six, from the first to the last."
        ),
    )
    layer: Layer = Field(
        "last", description="Layer of the figure head x position, by name or number."
    )
    head: Annotated[
        Annotated[str, StringConstraints(pattern="^mean$")] | Seed, words("mean or a number from 0")
    ] = Field(
        "mean", description="Head of the figure position x layer, from 0, or the mean over heads."
    )
    renormalised: bool = Field(
        False,
        description="Whether each query's attention is divided by what it gives to spatial tokens.",
    )
    scale: Literal["own", "common"] = Field(
        "own", description="Of colours: each map's own, or one common to a figure."
    )
    percentile: float = Field(
        98.0,
        gt=0,
        le=100,
        description=(
            "Where colours end, of the values of a map (scale own) or a figure (common); 100 "
            "is the maximum."
        ),
    )
    smooth: bool = Field(
        False, description="Whether colours are interpolated between the centres of tokens."
    )
    single_maps: bool = Field(
        False, description="Whether every map is written as a file of its own too."
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the attention of the chosen images, which are all that its own pass is of."""
        return {"attention": None}
