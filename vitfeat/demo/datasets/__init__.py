"""The embedded datasets: made from scikit-learn's digits in the official layouts of real ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from vitfeat.errors import DataError

NAMES = ("coco", "partimagenet", "revisited", "davis", "spair")
"""Layouts that have an embedded dataset beside the digits themselves."""


def embedded_root(results: Path, layout: str) -> Path:
    """Return where the embedded dataset of a layout is written."""
    return results / "demo" / layout


def write(name: str, root: Path) -> None:
    """Write an embedded dataset; the bytes depend on nothing but the libraries' versions."""
    try:
        import_module(f"vitfeat.demo.datasets.{name}").write(root)
    except OSError as error:
        raise DataError(
            f"cannot write the demo's {name} under {root}: {error}: name a writable folder"
        ) from error
