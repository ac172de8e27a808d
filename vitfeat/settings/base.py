"""What all settings share: the taps that they need, and of how many images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vitfeat.store.layout import TOKEN_ARRAYS

Limit = int | None
"""Images that a tap is kept for: all (None), or so many, spread over the dataset."""


class Analysis(Protocol):
    """What the settings of all analyses and tasks have."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that it runs on."""

    def required_taps(self) -> Mapping[str, Limit]:
        """Return the taps that it needs of each dataset, and for how many images."""


def token_taps(kinds: tuple[str, ...]) -> dict[str, Limit]:
    """Return the taps that kinds of tokens are made from, of all images."""
    return {array: None for kind in kinds for array in TOKEN_ARRAYS[kind]}


def sources(analysis: Analysis) -> tuple[str, ...]:
    """Return all datasets whose stores it reads: its own, and those that it learns from."""
    learns_from = getattr(analysis, "train", {})
    return (*analysis.datasets, *learns_from.values())
