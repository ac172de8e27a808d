"""The embedded dataset in the layout revisited."""

from __future__ import annotations

from pathlib import Path


def write(root: Path) -> None:
    """Write it."""
    raise NotImplementedError
