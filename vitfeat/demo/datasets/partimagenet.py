"""The embedded dataset in PartImageNet's layout: digits and the parts of their strokes.

Every digit is a class with a synset's number, and all are in all splits. Superclasses go by shape;
their parts are the ink of the upper and the lower half (of curved digits, thirds) of the digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitfeat.demo import digits
from vitfeat.demo.datasets.annotated import Bool, annotation, draw, dump, paper, save

SUPERCLASSES = {
    "Curved": ((2, 3, 5), ("Top", "Middle", "Bottom")),
    "Round": ((0, 6, 8, 9), ("Top", "Bottom")),
    "Straight": ((1, 4, 7), ("Head", "Foot")),
}
"""The digits of each superclass, and its parts from top to bottom."""

# Images of each digit; a few have less, so that they run out when a number of each superclass is
# drawn.
_SPLITS: tuple[tuple[str, digits.Split, int], ...] = (
    ("train", "train", 2),
    ("val", "test", 6),
    ("test", "test", 3),
)
_FEWER = {8: 1, 4: 2}

# Width and height, by turns.
_CANVASES = ((44, 44), (52, 40), (40, 48), (48, 44))

_SEED = 23


def write(root: Path) -> None:
    """Write ``{split}/{synset}/*.JPEG`` and ``{split}.json`` of all three splits."""
    _, labels = digits._source()
    rng = np.random.default_rng(_SEED)
    left = {
        (source, digit): [p for p in digits._positions(labels, source) if labels[p] == digit]
        for source in ("train", "test")
        for digit in range(10)
    }
    for split, source, n in _SPLITS:
        positions: list[tuple[int, int]] = []
        for digit in range(10):
            few = min(n, _FEWER.get(digit, n))
            positions += [(left[source, digit].pop(0), digit) for _ in range(few)]
        _write_split(root, split, positions, rng)


def _write_split(
    root: Path, split: str, positions: list[tuple[int, int]], rng: np.random.Generator
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for place, (position, digit) in enumerate(positions):
        width, height = _CANVASES[place % len(_CANVASES)]
        canvas = paper(height, width, rng)
        mask = draw(canvas, position, (0, 0, height, width), rng)
        synset = f"n{digit:08d}"
        name = f"{synset}_{position}.JPEG"
        for category, part in _parts(mask, digit):
            annotations.append(annotation(len(annotations), place, category, part, "polygons"))
        save(canvas, root / split / synset / name)
        images.append({"file_name": name, "height": height, "width": width, "id": place})
    if split == "val":
        # The official files have some of these.
        annotations[-1] |= {"segmentation": [[1.0, 1.0, 2.0, 1.0]], "area": 0}
    content = {
        "info": {"description": "The demo's digits in the layout of PartImageNet"},
        "images": images,
        "annotations": annotations,
        "categories": _categories(),
    }
    dump(root / f"{split}.json", content)


def _categories() -> list[dict[str, Any]]:
    names = [(whole, part) for whole, (_, parts) in SUPERCLASSES.items() for part in parts]
    return [
        {"id": number, "name": f"{whole} {part}", "supercategory": whole}
        for number, (whole, part) in enumerate(names)
    ]


def _parts(mask: Bool, digit: int) -> Iterator[tuple[int, Bool]]:
    """Cut a digit's ink into its parts: their categories and masks."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = 0
    for members, names in SUPERCLASSES.values():
        if digit in members:
            edges = rows[0] + np.arange(len(names) + 1) * (rows[-1] + 1 - rows[0]) // len(names)
            for number in range(len(names)):
                part = np.zeros_like(mask)
                here = np.s_[edges[number] : edges[number + 1]]
                part[here] = mask[here]
                yield first + number, part
        first += len(names)
