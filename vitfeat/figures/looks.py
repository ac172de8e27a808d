"""How models are told apart: colour by family, line and marker by size, columns by size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from vitfeat.figures import style
from vitfeat.figures.models import Model

MARKER_SIZE = 2.8
"""Of markers on lines, in points."""

FADED = 0.7
"""Share of white beyond which a tint of a family's colour could not be seen."""

REFERENCE_LOOK_COLOUR = "#767676"

GREY = "#333333"
"""Of legend entries that stand for a size in any family."""

SIMILAR_DEPTH = 1.5
"""Networks share a column only if none has more than so many times the layers of another."""


@dataclass(frozen=True)
class Look:
    """How a model's line and points are drawn."""

    colour: str  # ``#rrggbb``: that of the family, or a tint of it
    line: style.LineStyle = "solid"  # line style of the network's size
    # marker, filled: marker of the patch size, hollow for large inputs
    marker: str = ""
    filled: bool = True
    # Size of the marker where there is no line, in points: that of the network.
    points: float = style.SIZE_POINTS["B"]

    def drawn(self, width: float = 1.1) -> dict[str, Any]:
        """Return matplotlib's properties of the line with its markers."""
        return {
            "color": self.colour,
            "ls": self.line,
            "lw": width,
            "marker": self.marker,
            "ms": MARKER_SIZE,
            "mew": 0.6,
            "mec": self.colour,
            "mfc": self.colour if self.filled else "white",
        }

    def point(self) -> dict[str, Any]:
        """Return matplotlib's properties of a marker without line, with a white rim if filled."""
        rim = {"mec": "white", "mew": 0.4} if self.filled else {"mew": 0.8}
        return self.drawn() | {"ls": "none", "ms": self.points} | rim

    def handle(self, label: str) -> Line2D:
        """Return an entry of a legend for lines."""
        return Line2D([], [], label=label, **self.drawn())

    def point_handle(self, label: str) -> Line2D:
        """Return an entry of a legend for points."""
        return Line2D([], [], label=label, **self.point())


def looks(models: Sequence[Model]) -> dict[str, Look]:
    """Return the look of each model, by id.

    Colour comes from the family, line and marker from the size, so that a model looks the same in
    all figures of the same models; of several models that agree in both, those after the first
    have lighter tints of the colour. Where all are of one size, their lines are solid.
    """
    bare = {model.id: _look(model.family, model.size) for model in models}
    if len({letter(model.size) for model in models}) == 1:
        bare = {name: replace(look, line="solid") for name, look in bare.items()}
    total, seen = Counter(bare.values()), Counter[Look]()
    found = {}
    for model in models:
        look = bare[model.id]
        share = FADED * seen[look] / total[look]
        seen[look] += 1
        found[model.id] = replace(look, colour=style.lighter(look.colour, share))
    return found


def _look(family: str, size: str) -> Look:
    marker, filled = style.size_marker(size)
    line, points = style.size_line(size), style.size_points(size)
    return Look(style.family_colour(family), line, marker, filled, points)


def reference_look() -> Look:
    """Return the look of a baseline that is no model: a grey dotted line without markers."""
    return Look(REFERENCE_LOOK_COLOUR, style.BASELINE_LINE)


def size_handles(models: Sequence[Model]) -> list[Line2D]:
    """Return a legend of what lines and markers mean, in grey; nothing of what does not differ.

    A line stands for the size of the network, a marker for its patches, a hollow one for a large
    input.
    """
    sizes = ordered_sizes(models)
    lines: dict[str, list[str]] = {}
    marks: dict[str, dict[str, None]] = {}
    for size in sizes:
        lines.setdefault(str(style.size_line(size)), []).append(size)
        patch = size.partition("/")[2].partition("@")[0]
        marks.setdefault(style.size_marker(size)[0], {})[patch or "?"] = None
    found = []
    if len(lines) > 1:
        for some in lines.values():
            named = ", ".join(dict.fromkeys(map(network, some)))
            found.append(Look(GREY, style.size_line(some[0])).handle(named))
    if len(marks) > 1:
        for marker, patches in marks.items():
            look = Look(GREY, "none", marker)
            found.append(look.handle(f"patch {', '.join(patches)}"))
    if len({style.size_marker(size)[1] for size in sizes}) > 1:
        look = Look(GREY, "none", "o", filled=False)
        found.append(look.handle(f"input over {style.LARGE_INPUT} pixels"))
    return found


def point_handles(models: Sequence[Model]) -> list[Artist]:
    """Return a legend of the sizes of models drawn as points, in grey; none for a single size."""
    shown = dict.fromkeys(short_size(size) for size in ordered_sizes(models))
    if len(shown) < 2:
        return []
    return [replace(_look("", size), colour=GREY).point_handle(size) for size in shown]


def ordered_sizes(models: Sequence[Model]) -> list[str]:
    """Return the sizes of models, each once, by letter and patch; unknown ones are left out."""
    return sorted({model.size for model in models if model.size}, key=_size_order)


def network(size: str) -> str:
    """Name a network's size: ``ViT-B`` of ``B/16@224``; one without a letter as it is."""
    named = letter(size)
    return f"ViT-{named}" if named.rstrip("+") in style.SIZE_LINES else named


def short_size(size: str) -> str:
    """Return a size without its input where that is not large: ``B/16``, but ``B/16@384``."""
    _, filled = style.size_marker(size)
    return size.partition("@")[0] if filled else size


def letter(size: str) -> str:
    """Return what a size says of the network alone: ``B`` of ``B/16@224``."""
    return size.partition("/")[0]


def _size_order(size: str) -> tuple[int, str, int, str]:
    known = list(style.SIZE_LINES)
    network, _, behind = size.partition("/")
    patch = behind.partition("@")[0]
    place = known.index(network.rstrip("+")) if network.rstrip("+") in known else len(known)
    return place, network, -int(patch) if patch.isdecimal() else 0, behind


def size_groups(models: Sequence[Model], depths: Mapping[str, int]) -> list[list[Model]]:
    """Split models by the size of their network, for columns where layers can be compared.

    Sizes ascend. A size with a single model joins a neighbour, so that no column holds a single
    line, unless one has over one and a half times the layers of the other (`depths`, by id).
    """
    sizes = sorted({model.size for model in models}, key=_size_order)
    groups: dict[str, list[Model]] = {letter(size): [] for size in sizes}
    for model in models:
        groups[letter(model.size)].append(model)
    merged = list(groups.values())
    place = 0
    while place < len(merged):
        beside = [at for at in (place - 1, place + 1) if 0 <= at < len(merged)]
        fitting = [at for at in beside if _similar(merged[place] + merged[at], depths)]
        if len(merged[place]) == 1 and fitting:
            low, high = sorted((place, fitting[0]))
            together = {model.id for model in merged[low] + merged[high]}
            merged[low : high + 1] = [[model for model in models if model.id in together]]
            place = 0
        else:
            place += 1
    return merged


def _similar(models: Sequence[Model], depths: Mapping[str, int]) -> bool:
    found = [depths[model.id] for model in models if model.id in depths]
    return not found or max(found) <= SIMILAR_DEPTH * min(found)


def group_title(models: Sequence[Model]) -> str:
    """Name the sizes of a group: ``ViT-L, ViT-H``; what has no letter is called as it is."""
    named = dict.fromkeys(map(network, sorted({m.size for m in models}, key=_size_order)))
    return ", ".join(name or "size unknown" for name in named)


def family_title(models: Sequence[Model]) -> str:
    """Name a family after the words that its models' labels begin with, without sizes.

    ``DINO`` of ``DINO S/16`` and ``DINO B/16``; the family's key where labels share no word.
    """
    words = [
        [word for word in model.label.split() if not word.startswith(short_size(model.size) or " ")]
        for model in models
    ]
    shared = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return " ".join(shared) or models[0].family
