"""The embedded datasets: made from scikit-learn's digits in the official layouts of real ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from vitfeat.errors import DataError

NAMES = ("digits", "coco", "partimagenet", "revisited", "davis", "spair")
"""Layouts that have an embedded dataset; all are made from the digits."""


def embedded_root(results: Path, layout: str) -> Path:
    """Return where the embedded dataset of a layout is written."""
    return results / "demo" / layout


def write(name: str, root: Path) -> None:
    """Write an embedded dataset; the bytes depend on nothing but the libraries' versions."""
    try:
        place = "vitfeat.demo" if name == "digits" else "vitfeat.demo.datasets"
        import_module(f"{place}.{name}").write(root)
    except OSError as error:
        raise DataError(
            f"cannot write the demo's {name} under {root}: {error}: name a writable folder"
        ) from error
