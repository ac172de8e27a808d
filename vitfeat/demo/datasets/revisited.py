"""The embedded dataset in the layout of revisited Oxford and Paris.

A landmark is one handwritten digit. Its easy images show it large, little turned and moved; its
hard ones small, turned, blurred, behind a bar and among other strokes; its junk hardly at all. The
rest are other people's digits, of the same shapes too, so that it takes more than the class to tell
them apart. Queries are larger, with strokes around the box.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vitfeat.demo import digits
from vitfeat.demo.datasets.annotated import save
from vitfeat.files import replacing

N_LANDMARKS = 10
"""One of each digit, and as many queries."""

_EASY, _HARD, _JUNK, _OTHERS = 3, 3, 1, 20

# Of these digits' landmarks there are only easy images, and one more of them.
_NEVER_HARD = (7,)

_SIZES = ((64, 48), (48, 64), (80, 48), (48, 80), (64, 64))
_QUERY_SIZES = ((96, 72), (72, 96), (96, 64), (80, 80))

_SEED = 5

Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class _Change:
    """How a digit is put on a canvas; what is random about it is drawn within these.

    ``side`` is least and greatest share of the canvas's shorter side, ``turn`` the greatest angle
    in degrees, ``off`` the greatest way from the middle as a share of the room that there is,
    ``ink`` its least and greatest value, ``blur`` the radius of a Gaussian in pixels, ``bar`` the
    width of a dark bar across the digit as a share of its side, ``strokes`` how many pieces of
    others are beside it.
    """

    side: tuple[float, float]
    turn: float
    off: float
    ink: tuple[float, float]
    blur: float = 0.0
    bar: float = 0.0
    strokes: int = 0


_CHANGES = {
    "query": _Change((0.5, 0.6), 4, 0.6, (230, 255), strokes=4),
    "easy": _Change((0.8, 1.0), 8, 1.0, (180, 255), strokes=1),
    "hard": _Change((0.65, 0.9), 18, 1.0, (170, 255), blur=0.6, bar=0.12, strokes=3),
    "junk": _Change((0.3, 0.4), 60, 1.0, (60, 80), blur=1.5, bar=0.3, strokes=5),
    "other": _Change((0.7, 1.0), 15, 1.0, (170, 255), blur=0.3, strokes=2),
}


def write(root: Path) -> None:
    """Write the dataset: ``gnd_roxford5k.pkl`` and ``jpg``."""
    generator = np.random.default_rng(_SEED)
    images, labels = digits.load("test")
    ink = images[..., 0]
    landmarks = [int(np.flatnonzero(labels == digit)[0]) for digit in range(N_LANDMARKS)]
    spare = generator.permutation(np.setdiff1d(np.arange(len(ink)), landmarks))
    strokes = ink[spare[_OTHERS:]]
    pictures: dict[str, NDArray[np.uint8]] = {}
    shown: list[tuple[str, int]] = []
    for digit in range(N_LANDMARKS):
        hard = 0 if digit in _NEVER_HARD else _HARD
        counts = {"easy": _EASY + (not hard), "hard": hard, "junk": _JUNK}
        shown += [(grade, digit) for grade, count in counts.items() for _ in range(count)]
    shown += [("other", int(place)) for place in spare[:_OTHERS]]
    # The names tell nothing of what there is to see, and the order of the list does not either.
    shown = [shown[place] for place in generator.permutation(len(shown))]
    names = [f"place_{number:06d}" for number in range(len(shown))]
    graded: list[dict[str, list[int]]] = [
        {"easy": [], "hard": [], "junk": []} for _ in range(N_LANDMARKS)
    ]
    for place, (name, (kind, which)) in enumerate(zip(names, shown, strict=True)):
        picked = which if kind == "other" else landmarks[which]
        size = _SIZES[place % len(_SIZES)]
        pictures[name], _ = _canvas(ink[picked], size, _CHANGES[kind], strokes, generator)
        if kind != "other":
            graded[which][kind].append(place)
    queries = [f"{name}_000001" for name in digits.CLASS_NAMES]
    gnd: list[dict[str, Any]] = []
    for digit, name in enumerate(queries):
        size = _QUERY_SIZES[digit % len(_QUERY_SIZES)]
        pictures[name], box = _canvas(
            ink[landmarks[digit]], size, _CHANGES["query"], strokes, generator
        )
        places = {grade: np.array(found, dtype=np.int64) for grade, found in graded[digit].items()}
        gnd.append({"bbx": list(map(float, box)), **places})
    content = {"imlist": names, "qimlist": queries, "gnd": gnd}
    with replacing(root / "gnd_roxford5k.pkl") as partial:
        # What the official files are written in, and the same bytes from any Python.
        partial.write_bytes(pickle.dumps(content, protocol=2))
    for name, picture in pictures.items():
        save(picture, root / "jpg" / f"{name}.jpg", quality=92)


def _canvas(
    digit: NDArray[np.uint8],
    size: tuple[int, int],
    change: _Change,
    strokes: NDArray[np.uint8],
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Draw a digit on a dark ground among pieces of others: uint8 (height, width).

    The box is the digit's square: left, top, right and bottom in whole pixels within the canvas.
    """
    side = round(min(size) * generator.uniform(*change.side))
    left, top = (
        round((edge - side) / 2 * (1 + change.off * generator.uniform(-1, 1))) for edge in size
    )
    drawn = _turned(digit, side, change.turn * generator.uniform(-1, 1))
    if change.bar:
        drawn *= _without_bar(side, change.bar, generator)
    canvas = _ground(size, generator)
    for _ in range(change.strokes):
        _put_stroke(canvas, strokes, (left, top, side), generator)
    ink = drawn * generator.uniform(*change.ink)
    part = canvas[top : top + side, left : left + side]
    np.maximum(part, ink, out=part)
    picture = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    if change.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(change.blur))
    return np.asarray(picture), (left, top, left + side, top + side)


def _turned(digit: NDArray[np.uint8], side: int, angle: float) -> Pixels:
    """Return a digit as a square of values from 0 to 1."""
    image = Image.fromarray(digit).rotate(angle, Image.Resampling.BICUBIC)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) / 255.0


def _without_bar(side: int, share: float, generator: np.random.Generator) -> Pixels:
    """Return a square of ones but for a bar of zeros across it."""
    at = np.arange(side) / side
    start = generator.uniform(0.2, 0.8 - share)
    kept = np.where((at >= start) & (at < start + share), 0.0, 1.0)
    return np.tile(kept, (side, 1)) if generator.random() < 0.5 else np.tile(kept[:, None], side)


def _ground(size: tuple[int, int], generator: np.random.Generator) -> Pixels:
    """Return dark paper with a soft grain."""
    coarse = generator.uniform(0, 28, (6, 6)).astype(np.uint8)
    soft = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(soft) + generator.uniform(0, 8, (size[1], size[0]))


def _put_stroke(
    canvas: Pixels,
    strokes: NDArray[np.uint8],
    digit: tuple[int, int, int],
    generator: np.random.Generator,
) -> None:
    """Put a piece of another digit on a canvas, where it leaves the digit's square free."""
    side = 14
    piece = strokes[generator.integers(len(strokes))]
    y, x = generator.integers(0, piece.shape[0] - side, 2)
    top, left = (int(generator.integers(0, edge - side + 1)) for edge in canvas.shape)
    ink = piece[y : y + side, x : x + side] * generator.uniform(0.3, 0.8)
    under = canvas[top : top + side, left : left + side]
    free = np.ones(canvas.shape, dtype=bool)
    free[digit[1] : digit[1] + digit[2], digit[0] : digit[0] + digit[2]] = False
    where = free[top : top + side, left : left + side]
    under[where] = np.maximum(under, ink)[where]
