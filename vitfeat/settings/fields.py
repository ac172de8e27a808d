"""Types of fields: what several settings take."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from vitfeat.store.layout import TAPS

Item = TypeVar("Item")


def _apart(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) < len(items):
        raise ValueError(": an item stands there twice")
    return items


_UNIQUE = Field(json_schema_extra={"uniqueItems": True})

AnyOf: TypeAlias = Annotated[tuple[Item, ...], AfterValidator(_apart), _UNIQUE]
"""Items, none of them twice."""

SomeOf: TypeAlias = Annotated[
    tuple[Item, ...], Field(min_length=1), AfterValidator(_apart), _UNIQUE
]
"""One item or more, none of them twice."""

_FIVE = "first, q1, middle, q3, last"
_SIGNED = "a number (from 0, or from the end where negative)"

LAYER_WORDS = "^(first|q1|middle|q3|last)$"
_LAYER_NAME = Annotated[str, StringConstraints(pattern=LAYER_WORDS)]
_ALL_NAME = Annotated[str, StringConstraints(pattern="^(all|first|q1|middle|q3|last)$")]
_SPREAD_NAME = Annotated[str, StringConstraints(pattern="^(all|spread|first|q1|middle|q3|last)$")]


def words(allowed: str) -> Any:
    """Return what says in words which texts and numbers a field takes."""
    return Field(json_schema_extra={"allowed": allowed})


Layer: TypeAlias = Annotated[_LAYER_NAME | int, words(f"{_FIVE}, or {_SIGNED}")]
"""One layer, by name or number."""

Layers: TypeAlias = Annotated[
    _ALL_NAME
    | int
    | Annotated[
        tuple[Annotated[_ALL_NAME | int, words(f"all, {_FIVE}, or {_SIGNED}")], ...],
        Field(min_length=1),
    ],
    words(f"all, {_FIVE}, {_SIGNED}, or a list of these"),
]
"""Layers, by name or number."""

ShownLayers: TypeAlias = Annotated[
    _SPREAD_NAME
    | int
    | Annotated[
        tuple[Annotated[_SPREAD_NAME | int, words(f"spread, all, {_FIVE}, or {_SIGNED}")], ...],
        Field(min_length=1),
    ],
    words(f"spread, all, {_FIVE}, {_SIGNED}, or a list of these"),
]
"""Layers that a figure shows, by name or number; ``spread`` is a few over the depth."""

Images: TypeAlias = Annotated[int, Field(ge=1)] | Annotated[tuple[str, ...], Field(min_length=1)]
"""How many images, spread over the dataset, or their ids."""

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Fraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0)]
Size: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)]
"""Height and width in pixels."""

LayerJobs: TypeAlias = Annotated[
    bool, Field(description="Whether several jobs share a model's layers, six at most each.")
]
Masks: TypeAlias = Literal["coverage", "paper"]
Tap: TypeAlias = Annotated[str, WithJsonSchema({"enum": list(TAPS)})]
Auto: TypeAlias = Annotated[str, StringConstraints(pattern="^auto$")]


def of_home(path: str | pathlib.Path) -> pathlib.Path:
    """Return a path, whose ``~`` is a home."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f": found {str(path)!r}: no folder of that user is known") from error


Path: TypeAlias = Annotated[
    pathlib.Path,
    BeforeValidator(of_home),
    WithJsonSchema({"type": "string", "minLength": 1, "allowed": "a path"}),
]
"""A path, which stays relative to the working directory."""
