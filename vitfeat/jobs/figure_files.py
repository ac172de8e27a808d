"""A figure's files: PNG, PDF, and the numbers that it shows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from vitfeat.figures import style
from vitfeat.tables import write_table


def save_with_numbers(
    figure: Figure, png: Path, kind: type[NamedTuple], rows: Iterable[Any], printed: str = ""
) -> None:
    """Write a figure as PNG and PDF, and its numbers as CSV of the same name.

    What it prints of the settings is a column of these.
    """
    style.save(figure, png)
    write_table(png.with_suffix(".csv"), kind, rows, **({"settings": printed} if printed else {}))
