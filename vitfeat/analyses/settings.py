"""What settings of analyses are made of: models that each say their keys once.

A model gives the config's schema, its defaults and messages, the flags of the command and their
help, and a table of the docs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from vitfeat.errors import ConfigError
from vitfeat.store.layout import TOKEN_ARRAYS

Limit = int | None
"""Images that a tap is kept for: all (None), or so many, spread over the dataset."""

Item = TypeVar("Item")


def _apart(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) < len(items):
        raise ValueError("an item stands there twice")
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

_ALL = words(f"all, {_FIVE}, or numbers from 0")
Layers: TypeAlias = Annotated[
    _ALL_NAME | int | Annotated[tuple[Annotated[_ALL_NAME | int, _ALL], ...], Field(min_length=1)],
    _ALL,
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
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0)]
LayerJobs: TypeAlias = Annotated[
    bool, Field(description="Whether several jobs share a model's layers, six at most each.")
]
Masks: TypeAlias = Literal["coverage", "paper"]

PRINTED = "printed"
"""Annotates a setting that changes numbers and shows in none of them: figures print it."""


class Settings(BaseModel):
    """Settings of an analysis; each field has its type, bounds, default and description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explained(type(self), values, error)) from error

    required: ClassVar[tuple[str, ...]] = ("datasets",)
    """Fields that a config must give; elsewhere, stores say what they would."""

    own_pass: ClassVar[bool] = False
    """Whether it is of so few images that its own job pushes them through the models, beside the
    stores: its function takes ``push``, which does it."""

    datasets: SomeOf[str] = Field((), description="Datasets to run on.")

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the taps that it needs of each dataset, and for how many images."""
        return {}

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return those of some settings that make a difference, beside one another."""
        return {key: getattr(self, key) for key in keys}

    @classmethod
    def printed_keys(cls) -> tuple[str, ...]:
        """Return which settings figures print."""
        return tuple(key for key, field in cls.model_fields.items() if PRINTED in field.metadata)

    def printed(self, keys: Collection[str] | None = None) -> str:
        """Say what is set of the settings that figures print: of those that were given, or some.

        A figure is drawn from tables: what nobody says of them may be other than the default.
        """
        told = self.model_fields_set if keys is None else keys
        values = self.used([key for key in self.printed_keys() if key in told])
        return ", ".join(
            f"{key}=" + "/".join(map(str, value if isinstance(value, tuple) else (value,)))
            for key, value in values.items()
            if value is not None
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """All datasets whose stores it reads: its own, and those that it learns from."""
        return self.datasets


def _explained(kind: type[Settings], values: Mapping[str, Any], error: ValidationError) -> str:
    """Say what is wrong as a config's error does; what that needs is loaded where it is needed."""
    from vitfeat.config.messages import flaw
    from vitfeat.config.schema import schema_of

    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    first = error.errors()[0]
    return flaw(plain, schema_of(kind)) or f"config: {first['loc'][0]}: {first['msg']}"


class LearntSettings(Settings):
    """Settings of an analysis that classifies images from those of another dataset."""

    required: ClassVar[tuple[str, ...]] = ("datasets", "train")

    train: Mapping[str, str] = Field(
        {}, description="Dataset that each of them is classified from."
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """Both."""
        return (*self.datasets, *self.train.values())


class TokenSettings(Settings):
    """Settings of an analysis of whole images, by features of their tokens."""

    features: SomeOf[Literal["cls", "mean"]] = Field(
        ("cls", "mean"), description="CLS tokens, means of the spatial tokens."
    )
    final_norm: bool = Field(False, description="Whether the model's final norm is applied first.")

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the features are made from."""
        return token_taps(self.features)


class KMeansSettings(Settings):
    """Settings of an analysis that clusters every layer and scores that against classes."""

    clusters: Annotated[int | None, PRINTED] = Field(
        None, ge=2, description="Number of clusters; null takes that of the classes or categories."
    )
    n_init: Annotated[Count, PRINTED] = Field(
        10, description="Initialisations of k-means; the best is kept."
    )
    seeds: Annotated[Count, PRINTED] = Field(3, description="Seeds that scores are averaged over.")
    seed: Annotated[Seed, PRINTED] = Field(0, description="The first seed.")

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)


def token_taps(kinds: tuple[str, ...]) -> dict[str, Limit]:
    """Return the taps that kinds of tokens are made from, of all images."""
    return {array: None for kind in kinds for array in TOKEN_ARRAYS[kind]}
