r"""Letters of figures: which font has them, how wide they are, what is written where none has.

Figures use DejaVu Sans, which comes with matplotlib. Letters that it lacks, such as Chinese ones,
are taken from the first installed font that has them. A letter that no font has is written as its
number, ``\u732b``, which can be read and looked up; a line in the log says so.
"""

from __future__ import annotations

import logging
import unicodedata
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import ScalarFormatter

FAMILY = "DejaVu Sans"
"""Of all letters that it has."""

NOT_FONTS = ("Last Resort", "LastResort")
"""Beginnings of the names of fonts that have a box for every letter."""

WEIGHTS = (400, 700)
"""Of the faces that figures use."""

_LOG = logging.getLogger("vitfeat")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of a text at a font size in points, as it is drawn."""
    text = readable(text)
    font = FontProperties(family=list(families(text)), size=size, weight=weight)
    # From the letters' advances: the extents of their outlines cost twenty times as much.
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def readable(text: str) -> str:
    r"""Write letters that no font has as their numbers, and accents with their letters.

    Examples
    --------
    >>> readable("cat \U000e0041.jpg")
    'cat \\U000e0041.jpg'
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(c if c.isspace() or _font_of(c) else _number(c) for c in composed)


def families(text: str) -> tuple[str, ...]:
    """Return the fonts that a text is written in, the usual one first."""
    fonts = (_font_of(c) for c in text if not c.isascii() and not c.isspace())
    return (FAMILY, *dict.fromkeys(f for f in fonts if f and f != FAMILY))


def make_readable(figure: Figure) -> None:
    """Give every text of a figure its fonts; what no font has is written as numbers."""
    unknown: set[str] = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            # Names of ticks are written anew whenever the figure is drawn.
            named = not isinstance(axis.get_major_formatter(), ScalarFormatter)
            texts = [label.get_text() for label in axis.get_ticklabels()] if named else []
            if any(map(_lacks, texts)):
                unknown.update(*texts)
                axis.set_ticklabels([readable(text) for text in texts])
    for text in (one for one in figure.findobj(Text) if _lacks(one.get_text())):
        unknown.update(text.get_text())
        text.set_text(readable(text.get_text()))
        text.set_fontfamily(families(text.get_text()))
    _say(frozenset(c for c in unknown if readable(c) != c))


@cache
def _say(unknown: frozenset[str]) -> None:
    """Say once which letters are written as numbers."""
    if unknown:
        letters = ", ".join(sorted(f"{c} ({_number(c)})" for c in unknown))
        _LOG.warning(
            "no installed font has %s: figures show the number; install a font that has it, such "
            "as Noto Sans CJK",
            letters,
        )


def _lacks(text: str) -> bool:
    return any(not (c.isascii() or c.isspace()) and _font_of(c) != FAMILY for c in text)


def _number(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


@cache
def _font_of(letter: str) -> str:
    """Return the font that a letter is taken from; empty where none has it."""
    if _has(FAMILY, letter):
        return FAMILY
    return min((name for name in _faces() if _has(name, letter)), default="")


def _has(name: str, letter: str) -> bool:
    """Whether both faces of a font have a letter, plain and bold, as far as there are both."""
    return all(ord(letter) in _letters(path) for path in _faces()[name])


def _faces() -> dict[str, list[str]]:
    """Return the files of the plain and the bold face of installed fonts, by font."""
    found: dict[str, list[str]] = {}
    for font in fontManager.ttflist:
        usable = font.style == "normal" and font.weight in WEIGHTS
        if usable and not font.name.startswith(NOT_FONTS):
            found.setdefault(font.name, []).append(font.fname)
    return found


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a font of pictures, as of coloured emoji
        return frozenset()
