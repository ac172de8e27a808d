"""The embedded dataset in COCO's layout: digits as objects, several in an image, crowds of digits.

``val2017`` has 80 images of digits of the demo's test split, ``train2017`` 20 of its train split;
the categories are the digits. Masks have all forms of the official files: polygons (several where
a digit falls apart or has a hole), run lengths of crowds, and compressed ones. One image of
``val2017`` shows nothing and has no annotations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitfeat.demo import digits
from vitfeat.demo.datasets.annotated import Cell, Form, Grey, annotation, draw, dump, paper, save

_SPLITS: tuple[tuple[str, digits.Split, int], ...] = (
    ("val2017", "test", 80),
    ("train2017", "train", 20),
)
# Width and height, by turns; and objects, by turns of another length, so that all meet.
_CANVASES = ((64, 48), (48, 64), (80, 40), (56, 56), (72, 54))
_N_OBJECTS = (1, 1, 2, 1, 1, 3, 1, 1, 2, 1, 1, 4)

# Of so many images one has a crowd; of so many objects one has its run lengths compressed.
_CROWD, _COMPRESSED = 9, 50

# Rows and columns of digits in a crowd.
_CLUSTER = (3, 2)

_EMPTY = 50
"""The place of the image that shows nothing."""

_SEED = 17


def write(root: Path) -> None:
    """Write ``images/{split}/*.jpg`` and ``annotations/instances_{split}.json``."""
    for split, source, n in _SPLITS:
        _write_split(root, split, _Digits(source), n)


class _Digits:
    """The digits of a split, in random order, each once."""

    def __init__(self, source: digits.Split) -> None:
        self.rng = np.random.default_rng(_SEED)
        _, self._labels = digits._source()
        self._left = self.rng.permutation(digits._positions(self._labels, source)).tolist()

    def take(self, label: int | None = None) -> tuple[int, int]:
        """Return position and label of the next digit, or of the next with a label."""
        for place, position in enumerate(self._left):
            if label is None or self._labels[position] == label:
                del self._left[place]
                return position, int(self._labels[position])
        raise AssertionError("the split has more digits than are drawn")


def _write_split(root: Path, split: str, source: _Digits, n: int) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for place in range(n):
        width, height = _CANVASES[place % len(_CANVASES)]
        canvas = paper(height, width, source.rng)
        # Official numbers have gaps.
        image_id = 139 + 7 * place
        name = f"{image_id:012d}.jpg"
        if place != _EMPTY:
            n_objects = _N_OBJECTS[place % len(_N_OBJECTS)]
            annotations += _objects(canvas, n_objects, image_id, len(annotations), source)
        save(canvas, root / "images" / split / name)
        images.append({"file_name": name, "height": height, "width": width, "id": image_id})
    categories = [
        {"supercategory": "digit", "id": digit + 1, "name": name}
        for digit, name in enumerate(digits.CLASS_NAMES)
    ]
    content = {
        "info": {"description": "The demo's digits in the layout of COCO 2017"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    dump(root / "annotations" / f"instances_{split}.json", content)


def _objects(
    canvas: Grey, n: int, image_id: int, n_before: int, source: _Digits
) -> Iterator[dict[str, Any]]:
    """Draw the objects of an image, and yield their annotations."""
    has_crowd = (image_id // 7) % _CROWD == 0
    cells = _cells(canvas.shape, n + has_crowd)
    for number, cell in enumerate(cells[:n], n_before + 1):
        position, label = source.take()
        mask = draw(canvas, position, cell, source.rng)
        form: Form = "polygons" if number % _COMPRESSED else "compressed"
        yield annotation(number, image_id, label + 1, mask, form)
    if has_crowd:
        position, label = source.take()
        top, left, bottom, right = cells[n]
        mask = np.zeros(canvas.shape, dtype=np.bool_)
        for member, small in enumerate(_grid((bottom - top, right - left), *_CLUSTER)):
            if member:
                position, _ = source.take(label)
            moved = small[0] + top, small[1] + left, small[2] + top, small[3] + left
            mask |= draw(canvas, position, moved, source.rng)
        # As the official files number crowds.
        crowd_id = 900_000_000_000 + 1_000_000 * (label + 1) + image_id
        yield annotation(crowd_id, image_id, label + 1, mask, "runs", crowd=1)


def _cells(shape: tuple[int, ...], n: int) -> list[Cell]:
    """Cut a canvas into at least n cells as square as can be; for a single one, take the middle."""
    height, width = shape
    if n == 1:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return [(top, left, top + side, left + side)]
    sides = [(rows, math.ceil(n / rows)) for rows in range(1, n + 1)]
    rows, columns = max(sides, key=lambda sides: min(height / sides[0], width / sides[1]))
    return _grid((height, width), rows, columns)


def _grid(shape: tuple[int, int], rows: int, columns: int) -> list[Cell]:
    """Cut into rows and columns: top, left, bottom, right of each cell."""
    height, width = shape
    return [
        (
            row * height // rows,
            column * width // columns,
            (row + 1) * height // rows,
            (column + 1) * width // columns,
        )
        for row in range(rows)
        for column in range(columns)
    ]
