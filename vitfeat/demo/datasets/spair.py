"""The embedded dataset in the layout spair: a digit of each category, drawn in several ways.

Of each split and category one handwritten digit of scikit-learn is drawn on canvases of different
aspects: turned, stretched, sheared and shifted, sometimes cut off by the canvas or partly covered.
Keypoints are cells of the digit's own 8 x 8 grid, so their places on a canvas are known exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.demo import digits
from vitfeat.demo.datasets.annotated import dump, save

CATEGORIES = (2, 3, 4, 7)
"""The digits that are categories."""

SPLITS = {"trn": 4, "val": 4, "test": 8}
"""How many images of a category each split has; one pair less."""

CANVASES = ((64, 48), (48, 64), (60, 44), (52, 60))
"""Width and height in pixels, by turns."""

KEYPOINTS = 8
"""Of a category."""

# The side of the grid that scikit-learn's digits are drawn on.
_CELLS = 8

# Cells with less ink show no keypoint, and pixels with less are not within the box.
_INK = 96

# The grid is enlarged so many times before it is drawn.
_FINE = 8

_PAPER = 24

_LEAST_SHARED = 4


@dataclass(frozen=True)
class Drawing:
    """A digit on a canvas, and what is annotated of it.

    ``points`` are x and y of each keypoint in pixels from 0, whole numbers being centres; None
    where it is beyond the canvas or covered. ``box`` is around the ink: left, top, right, bottom in
    pixels from 0. It was turned by ``angle`` degrees and stretched to ``scale`` pixels a cell;
    ``cut`` and ``covered`` tell whether keypoints are beyond the canvas, and whether some are
    covered.
    """

    name: str
    pixels: NDArray[np.uint8]
    points: list[tuple[float, float] | None]
    box: tuple[int, int, int, int]
    angle: float
    scale: float
    cut: bool
    covered: bool


def write(root: Path) -> None:
    """Write images, annotations of images and of pairs, and lists of pairs.

    The bytes depend on nothing but the versions of Pillow and its JPEG library; files that are
    there already are overwritten.
    """
    for split in SPLITS:
        _write_split(root, split)


def _write_split(root: Path, split: str) -> None:
    names: list[str] = []
    for digit in CATEGORIES:
        category = digits.CLASS_NAMES[digit]
        drawings = list(_drawings(split, digit))
        for drawing in drawings:
            _write_image(root, category, drawing)
        for source, target in _chosen(drawings, digit):
            number = len(names) + 1
            name = f"{number:06d}-{source.name}-{target.name}:{category}"
            path = root / "PairAnnotation" / split / f"{name}.json"
            dump(path, _pair(number, name, category, source, target))
            names.append(name)
    # The small lists are a choice of the same pairs.
    for size, listed in (("large", names), ("small", names[::2])):
        path = root / "Layout" / size / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in listed), "utf-8")


def _write_image(root: Path, category: str, drawing: Drawing) -> None:
    height, width = drawing.pixels.shape
    save(drawing.pixels, root / "JPEGImages" / category / f"{drawing.name}.jpg", subsampling=0)
    dump(
        root / "ImageAnnotation" / category / f"{drawing.name}.json",
        {
            "filename": f"{drawing.name}.jpg",
            "image_width": width,
            "image_height": height,
            "image_depth": 3,
            "category": category,
            "pose": "Unspecified",
            "truncated": int(drawing.cut),
            "occluded": int(drawing.covered),
            "difficult": 0,
            "bndbox": drawing.box,
            "kps": {str(number): point for number, point in enumerate(drawing.points)},
        },
    )


def _pair(
    number: int, name: str, category: str, source: Drawing, target: Drawing
) -> dict[str, Any]:
    """Annotate a pair: the keypoints that both show, and how hard it is, as the archive does."""
    shared = _shared(source, target)
    sides = {"src": source, "trg": target}
    turned = abs(source.angle - target.angle)
    grown = max(source.scale, target.scale) / min(source.scale, target.scale)
    return {
        "pair_id": number,
        "filename": name,
        **{f"{side}_imname": f"{one.name}.jpg" for side, one in sides.items()},
        **{f"{side}_imsize": [*one.pixels.shape[::-1], 3] for side, one in sides.items()},
        **{f"{side}_bndbox": one.box for side, one in sides.items()},
        "category": category,
        **{f"{side}_pose": "Unspecified" for side in sides},
        **{f"{side}_kps": [one.points[i] for i in shared] for side, one in sides.items()},
        "kps_ids": [str(i) for i in shared],
        "mirror": 0,
        "viewpoint_variation": int(turned > 10) + int(turned > 25),
        "scale_variation": int(grown > 1.1) + int(grown > 1.25),
        # 1 of the source, 2 of the target, 3 of both.
        "truncation": int(source.cut) + 2 * int(target.cut),
        "occlusion": int(source.covered) + 2 * int(target.covered),
    }


def _shared(source: Drawing, target: Drawing) -> list[int]:
    both = zip(source.points, target.points, strict=True)
    return [i for i, (a, b) in enumerate(both) if a is not None and b is not None]


def _chosen(drawings: Sequence[Drawing], digit: int) -> list[tuple[Drawing, Drawing]]:
    """Choose pairs: a chain through all images in random order, each pair with enough in common."""
    generator = np.random.default_rng(digit)
    while True:  # digits and seeds are fixed, and there is such a chain for all of them
        order = [drawings[i] for i in generator.permutation(len(drawings))]
        chain = list(pairwise(order))
        if all(len(_shared(*pair)) >= _LEAST_SHARED for pair in chain):
            return chain


def _drawings(split: str, digit: int) -> Iterator[Drawing]:
    """Draw the split's digit of a category in several ways."""
    place = list(SPLITS).index(split)
    cells = _digit(digit, place)
    points = _keypoints(cells)
    generator = np.random.default_rng((digit, place))
    for i in range(SPLITS[split]):
        name = f"1998_{digit}{place}{i:04d}"
        yield _drawing(name, cells, points, generator, CANVASES[i % len(CANVASES)], i)


def _digit(digit: int, place: int) -> NDArray[np.uint8]:
    """Return one of the digits that the demo models were not trained on: (8, 8)."""
    grey, labels = digits._source()
    of_class = [i for i in digits._positions(labels, "test") if labels[i] == digit]
    found: NDArray[np.uint8] = grey[of_class[place]]
    return found


def _keypoints(cells: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Choose cells with ink, far from one another: (point, x and y), in cells from the corner.

    The first is the uppermost, each further one the farthest from those before: ends, turns and
    crossings of the stroke.
    """
    rows, columns = np.nonzero(cells >= _INK)
    found = np.stack((columns, rows), axis=1) + 0.5
    chosen = [0]
    for _ in range(KEYPOINTS - 1):
        distances = np.linalg.norm(found[:, None] - found[chosen], axis=2).min(axis=1)
        chosen.append(int(distances.argmax()))
    return np.asarray(found[chosen])


def _drawing(
    name: str,
    cells: NDArray[np.uint8],
    points: NDArray[np.float64],
    generator: np.random.Generator,
    canvas: tuple[int, int],
    number: int,
) -> Drawing:
    width, height = canvas
    angle = float(generator.uniform(-18, 18))
    scale = float(generator.uniform(0.85, 1.05)) * min(canvas) / _CELLS
    stretch, shear = generator.uniform(0.9, 1.1), generator.uniform(-0.15, 0.15)
    turn = radians(angle)
    to_canvas = (
        scale
        * np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]])
        @ np.array([[stretch, shear], [0.0, 1 / stretch]])
    )
    # One in four reaches beyond the canvas.
    reach = 0.3 if number % 4 == 2 else 0.06
    centre = (0.5 + generator.uniform(-reach, reach, 2)) * (width, height)
    at = (points - _CELLS / 2) @ to_canvas.T + centre
    ink = _drawn(cells, to_canvas, centre, canvas) * generator.uniform(0.8, 1.0)
    covered = np.zeros((height, width), dtype=bool)
    if number % 4 == 3:
        _cover(covered, at[generator.integers(len(at))], scale)
    ink[covered] = 0
    shown = ink >= _INK
    paper = generator.uniform(0, _PAPER, (height, width))
    pixels = np.rint(np.clip(np.maximum(ink, paper), 0, 255)).astype(np.uint8)
    within = ((at >= 0) & (at < (width, height))).all(axis=1)
    hidden = np.zeros(len(at), dtype=bool)
    hidden[within] = covered[tuple(at[within].astype(int).T[::-1])]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return Drawing(
        name,
        pixels,
        [
            (round(float(x) - 0.5, 3), round(float(y) - 0.5, 3)) if seen else None
            for (x, y), seen in zip(at, within & ~hidden, strict=True)
        ],
        (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])),
        angle,
        scale,
        bool((~within).any()),
        bool(hidden.any()),
    )


def _drawn(
    cells: NDArray[np.uint8],
    to_canvas: NDArray[np.float64],
    centre: NDArray[np.float64],
    canvas: tuple[int, int],
) -> NDArray[np.float64]:
    """Draw the cells on a canvas: ink from 0 to 255, (height, width)."""
    # A cell of paper around, or strokes at the edge would end in a straight line.
    side = (_CELLS + 2) * _FINE
    fine = Image.fromarray(np.pad(cells, 1)).resize((side, side), Image.Resampling.BICUBIC)
    # Pillow asks where a place of the canvas comes from.
    back = np.linalg.inv(to_canvas) * _FINE
    start = side / 2 - back @ centre
    (a, b), (d, e) = back.tolist()
    moved = fine.transform(
        canvas,
        Image.Transform.AFFINE,
        (a, b, float(start[0]), d, e, float(start[1])),
        Image.Resampling.BICUBIC,
    )
    return np.asarray(moved, dtype=np.float64).copy()


def _cover(covered: NDArray[np.bool_], at: NDArray[np.float64], scale: float) -> None:
    """Cover a square of two cells' side around a place."""
    (left, top), (right, bottom) = (np.rint(at + side * scale).astype(int) for side in (-1, 1))
    covered[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
