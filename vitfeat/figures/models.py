"""A model as figures know it, and how families and sizes tell models apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A model as figures know it."""

    id: str  # its name in tables
    label: str  # its name in figures
    family: str  # the supervision, which gives the colour
    # Size, patch and input as in ``B/16@224``, which gives line and marker; empty if unknown.
    size: str = ""


LONGEST = 40
"""Letters of a model's name in figures: longer ones lose their middle."""


def models_from(given: Iterable[Mapping[str, str]]) -> list[Model]:
    """Return models from mappings with ``id``, ``label``, ``family`` and maybe ``size``."""
    given = list(given)
    cut = [shortened(m["label"]) for m in given]
    # Names that differ in the middle alone stay whole.
    labels = [m["label"] if cut.count(c) > 1 else c for m, c in zip(given, cut, strict=True)]
    return [
        Model(m["id"], label, m["family"], m.get("size", ""))
        for m, label in zip(given, labels, strict=True)
    ]


def shortened(text: str, longest: int = LONGEST) -> str:
    """Cut the middle out of a text that is too long.

    Examples
    --------
    >>> shortened("vit_small_patch16_224 of the third run", 21)
    'vit_small_…third run'
    """
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half].rstrip()}…{text[-half:].lstrip()}"
