"""A model as figures know it, and how families and sizes tell models apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A model as figures know it.

    Attributes
    ----------
    id
        Its name in tables.
    label
        Its name in figures.
    family
        The supervision, which gives the colour.
    size
        Size, patch and input as in ``B/16@224``, which gives line and marker; empty if unknown.
    """

    id: str
    label: str
    family: str
    size: str = ""


def models_from(given: Iterable[Mapping[str, str]]) -> list[Model]:
    """Return models from mappings with ``id``, ``label``, ``family`` and maybe ``size``."""
    return [Model(m["id"], m["label"], m["family"], m.get("size", "")) for m in given]
