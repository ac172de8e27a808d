"""The one style of every figure: a colour per family, fonts and sizes, and how a file is written.

Figures are made without pyplot, so that nothing global is touched and no window system is needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from vitfeat.figures.fonts import FAMILY, make_readable
from vitfeat.files import replacing

LineStyle = str | tuple[float, tuple[float, ...]]

FAMILY_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "supervised": "#000000",
        "clip": "#982600",
        "dino": "#166498",
        "moco": "#00854D",
        "mae": "#EE4FE3",
        "beit": "#AD8600",
        "random": "#4D4D4D",
        "noise": "#999999",
        "dinov2": "#3993C6",
        "dinov2-reg": "#3D1478",
        "dinov3": "#137386",
        "siglip2": "#67281E",
        "eva02": "#47152C",
        "deit3": "#AD4800",
        "ijepa": "#2C963D",
    }
)
"""Colour of each family, on white and as text.

Hues after Okabe & Ito 2008 ("Color universal design"), lightness and saturation then searched so
that the families of Walmer et al. 2023 and the baselines (the first eight) stay apart under
simulated protanopia and deuteranopia (Machado et al. 2009): at least 20 in CIELAB distance, 8
among all fifteen. So many cannot all differ in grey; a label always stands beside the colour.
"""

FALLBACK_COLOURS = ("#666633", "#7A4F9A", "#8A5A44", "#3F7F7F", "#A0446A", "#55722B")
"""For families without a colour of their own."""

UNTRAINED_FAMILIES = frozenset({"random", "noise"})
"""Families that are drawn as references: what an untrained network or no network gives."""

SIZE_LINES: Mapping[str, LineStyle] = MappingProxyType(
    {
        "T": (0, (3, 1, 1, 1, 1, 1)),
        "S": (0, (2.8, 1.2)),
        "B": "solid",
        "L": (0, (6, 1.5)),
        "H": (0, (6, 1.3, 1, 1.3)),
        "g": (0, (6, 1.2, 1, 1.2, 1, 1.2)),
        "bigG": (0, (9, 1.2, 1, 1.2)),
        "SO400M": (0, (3, 1.2, 1, 1.2)),
    }
)
"""Line of each network size, by the letter in ``B/16@224``; solid for others.

None is dotted: that is :data:`BASELINE_LINE`."""

BASELINE_LINE: LineStyle = (0, (1, 1.6))
"""Of baselines that are no models, such as shuffled labels or chance."""

PATCH_MARKERS: Mapping[str, str] = MappingProxyType(
    {"32": "s", "16": "o", "14": "D", "8": "^", "4": "p"}
)
"""Marker of each patch size in pixels; :data:`OTHER_MARKER` for others."""

OTHER_MARKER = "v"

SIZE_POINTS: Mapping[str, float] = MappingProxyType(
    {"T": 2.5, "S": 3.2, "B": 4.4, "L": 5.8, "H": 7.2, "g": 8.0, "bigG": 8.8, "SO400M": 6.4}
)
"""Markers without lines in points, by the letter in ``B/16@224``; that of B for others."""

LARGE_INPUT = 256
"""Markers are hollow for larger inputs than this, in pixels."""

VALUE_COLOURS = "magma"
"""Lightness rises with the value, in colour, in grey and for the colour-blind."""

NO_VALUE = "#B8B8B8"
"""Where a value is NaN."""

TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 10.0, 8.0, 6.5
"""Font sizes in points."""

WIDTHS: Mapping[int, float] = MappingProxyType({1: 3.5, 2: 7.4})
"""Inches of so many columns of a page's text."""

PAGE_WIDTH = WIDTHS[2]
"""Inches that figures aim at; :func:`choose` sets it."""

FORMATS: Sequence[str] = ("png", "pdf")
"""What files a figure is written as; :func:`choose` sets it."""

_UNSAID: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "png": ("Software",),
        "pdf": ("CreationDate", "Creator", "Producer"),
        "svg": ("Creator", "Date", "Format", "Type"),
    }
)

DPI = 220
"""Of the PNG, and of the images within the PDF."""

RC: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": FAMILY,  # comes with matplotlib: the same on every machine
        "font.size": TEXT_SIZE,
        "axes.linewidth": 0.6,
        "svg.hashsalt": "vitfeat",  # names within the file, which are drawn at random else
        "pdf.fonttype": 42,  # text stays text, which journals ask for
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "text.parse_math": False,  # names of models and files are no formulas
        "image.interpolation": "nearest",
        "image.composite_image": False,  # hundreds of panels pasted into one cost 15 seconds
    }
)
"""Matplotlib settings, used through :func:`settings`."""


def choose(*, format: Sequence[str], columns: int) -> None:
    """Set for this process how figures are written: as which files, and how wide."""
    global FORMATS, PAGE_WIDTH
    FORMATS, PAGE_WIDTH = ("png", *format), WIDTHS[columns]


def side_by_side(most: int) -> int:
    """Return how many panels stand side by side of those that two columns of text have room for."""
    return max(1, int(most * PAGE_WIDTH / WIDTHS[2]))


@contextmanager
def settings() -> Iterator[None]:
    """Apply the style to figures that are made within a ``with``, or in a decorated function."""
    rc: Any = dict(RC)
    with mpl.rc_context(rc):
        yield


def family_colour(family: str) -> str:
    """Colour of a family, ``#rrggbb``; one of a few, always the same, for an unknown family."""
    unknown = FALLBACK_COLOURS[zlib.crc32(family.encode()) % len(FALLBACK_COLOURS)]
    return FAMILY_COLOURS.get(family, unknown)


def size_line(size: str) -> LineStyle:
    """Line style of a size such as ``B/16@224``; solid where it has no letter of its own."""
    return SIZE_LINES.get(size.split("/")[0].rstrip("+"), "solid")


def size_points(size: str) -> float:
    """Size in points of a marker without a line, for a size such as ``B/16@224``."""
    return SIZE_POINTS.get(size.split("/")[0].rstrip("+"), SIZE_POINTS["B"])


def size_marker(size: str) -> tuple[str, bool]:
    """Marker of a size such as ``B/16@224``, and whether it is filled: hollow for large inputs."""
    _, _, behind = size.partition("/")
    patch, _, side = behind.partition("@")
    filled = not (side.isdecimal() and int(side) > LARGE_INPUT)
    return PATCH_MARKERS.get(patch, OTHER_MARKER if size else "o"), filled


def lighter(colour: str, share: float) -> str:
    """Mix a colour, ``#rrggbb``, with a share of white from 0 to 1."""
    red, green, blue = (1 - (1 - part) * (1 - share) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def save(figure: Figure, path_png: str | Path) -> None:
    """Write a figure as PNG, and as the other :data:`FORMATS` of the same name beside it.

    The same figure gives the same bytes: no dates and no versions are written. A file of another
    format, from before, goes: it would show other numbers.

    The folder is made when absent.
    """
    png = Path(path_png)
    with settings():
        make_readable(figure)
        for kind, keys in _UNSAID.items():
            path = png.with_suffix(f".{kind}")
            if kind not in FORMATS:
                path.unlink(missing_ok=True)
                continue
            # In memory first: on a full disk Matplotlib's PDF fails with another error.
            content = BytesIO()
            figure.savefig(content, format=kind, dpi=DPI, metadata=dict.fromkeys(keys))
            with replacing(path) as partial:
                partial.write_bytes(content.getvalue())
