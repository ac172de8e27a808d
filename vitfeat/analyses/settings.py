"""What settings of analyses are made of: models that each say their keys once.

A model gives the config's schema, its defaults and messages, the flags of the command and their
help, and a table of the docs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vitfeat.settings.fields import Count, Seed, SomeOf
from vitfeat.settings.part import Part
from vitfeat.store.layout import TOKEN_ARRAYS

Limit = int | None
"""Images that a tap is kept for: all (None), or so many, spread over the dataset."""

PRINTED = "printed"
"""Annotates a setting that changes numbers and shows in none of them: figures print it."""


class Settings(Part):
    """Settings of an analysis; each field has its type, bounds, default and description."""

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
