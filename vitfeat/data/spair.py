"""The layout of SPair-71k: pairs of images of one category, with keypoints that both show.

J. Min, J. Lee, J. Ponce, M. Cho: SPair-71k: a large-scale benchmark for semantic correspondence.
arXiv:1908.10543, 2019. The root holds the images, ``JPEGImages/{category}/{name}.jpg``, and a file
a pair, ``PairAnnotation/{split}/{number}-{source}-{target}:{category}.json``; where a file system
takes no colons, ``_`` may stand in its place. ``Layout/large/{split}.txt`` lists the pairs, a name
without ``.json`` on each line. ``ImageAnnotation`` and ``Layout/small``, a choice of the same
pairs, are not read.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.data.annotations import PointRow
from vitfeat.data.folders import Folder, Tally
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.listfile import names_in
from vitfeat.data.listing import (
    Candidate,
    Listing,
    is_file_name,
    parts_of,
    require_folder,
    require_size,
    stays_in,
)
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural

IMAGES, PAIRS, LISTS = "JPEGImages", "PairAnnotation", "Layout/large"
"""Folders of the layout."""

# Of the archive's own files the largest have 3 kB.
_MAX_BYTES = 2**20

# Far beyond any image: what is larger is no place in one.
_MAX_NUMBER = 1e9

_UNPACK = "unpack SPair-71k.tar.gz anew"

Point = tuple[float, float]


class Side(NamedTuple):
    """One of a pair's two images."""

    image_id: str
    size: tuple[int, int]
    """Width and height in pixels."""
    points: list[Point | None]
    """x and y of every keypoint; None where it is not visible."""


class Pair(NamedTuple):
    """A pair of images, as its file has it."""

    where: str
    """The file, for messages."""
    category: str
    source: Side
    target: Side
    box: tuple[float, float, float, float]
    """Of the target's object: left, top, right, bottom."""
    numbers: list[int]
    """Of the keypoints, which mean the same in all images of a category."""


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of a split's pairs, each once.

    The label is the number of the category among the sorted folders of ``JPEGImages``, so that it
    is the same in all splits; ``class_name`` its name.
    """
    require_folder(spec, IMAGES, f"put the folder {IMAGES} of SPair-71k.tar.gz there")
    categories = Folder.read(spec.root / IMAGES).folders
    labels = {name: number for number, name in enumerate(categories)}
    found: dict[str, str] = {}
    seen: set[str] = set()
    for pair in pairs(spec):
        if pair.category not in labels:
            raise DataError(
                f"{pair.where}: {IMAGES} has no folder {printable(pair.category)}, the category of "
                f"this pair; {_UNPACK}"
            )
        if pair.category not in seen:
            seen.add(pair.category)
            if not stays_in(spec.root / IMAGES, pair.category):
                raise DataError(
                    f"{pair.where}: {IMAGES}/{printable(pair.category)} is a link out of {IMAGES}; "
                    "put the images there themselves"
                )
        found |= {side.image_id: pair.category for side in (pair.source, pair.target)}
    images = sorted(found, key=parts_of)
    candidates = (Candidate(image, labels[found[image]], found[image]) for image in images)
    return Listing(candidates, has_labels=True)


def points(spec: DatasetSpec, index: Index, notes: list[str]) -> list[PointRow]:
    """Read the keypoints that are visible in both images of a pair, in the order of the pairs.

    Places and boxes are as annotated: x and y count pixels from 0, a whole number being the centre
    of a pixel. Pairs of which the index lacks an image are left out; the others keep their numbers,
    which count all pairs of the split. The notes say how many pairs and keypoints are left out, and
    what lies beyond its image.
    """
    row_of = {image_id: row for row, image_id in enumerate(index.image_id)}
    rows: list[PointRow] = []
    tally: Counter[str] = Counter()
    n_pairs = used = 0
    for number, pair in enumerate(pairs(spec)):
        n_pairs += 1
        if pair.source.image_id not in row_of or pair.target.image_id not in row_of:
            continue
        used += 1
        for side in (pair.source, pair.target):
            require_size(spec, index, row_of[side.image_id], side.size, pair.where)
        of_pair = list(_rows(number, pair))
        rows += of_pair
        tally["hidden"] += len(pair.numbers) - len(of_pair)
        tally["empty"] += not of_pair
        tally["same"] += _shared_places(pair.source) + _shared_places(pair.target)
        tally["box"] += _beyond_box(pair)
        tally["moved"] += sum(_is_beyond(row, pair) for row in of_pair)
    if not used:
        raise DataError(
            f"dataset {spec.name}: its index has both images of none of the "
            f"{plural(n_pairs, 'pair')} of {PAIRS}/{spec.split}; take more images "
            f"(datasets.{spec.name}.limit, per_class), or make the index anew"
        )
    tally["lost"] = n_pairs - used
    notes += [f"{plural(tally[key], noun)} {words}" for key, noun, words in _NOTED if tally[key]]
    return rows


_NOTED = (
    ("lost", "pair", "left out, of which the index lacks an image"),
    ("empty", "pair", "without a keypoint that both images show, in no score"),
    ("hidden", "keypoint", "left out, not visible in one of the images (null)"),
    (
        "same",
        "keypoint",
        "at the place of another of its image, or at 0, 0 (not visible? null leaves it out)",
    ),
    ("moved", "keypoint", "up to a pixel beyond an image, taken at its border in the source"),
    ("box", "target box", "more than a pixel beyond the image, used as annotated"),
)


def _is_beyond(row: PointRow, pair: Pair) -> bool:
    """Tell whether a place of a keypoint is beyond the centres of its image's outermost pixels."""
    places = (row.source_x, row.source_y), (row.target_x, row.target_y)
    return any(
        not 0 <= at <= n - 1
        for place, side in zip(places, (pair.source, pair.target), strict=True)
        for at, n in zip(place, side.size, strict=True)
    )


def _shared_places(side: Side) -> int:
    """Count the keypoints that are where another one is, or in the very corner."""
    counts = Counter(place for place in side.points if place is not None)
    return sum(count for place, count in counts.items() if count > 1 or place == (0, 0))


def _beyond_box(pair: Pair) -> bool:
    left, top, right, bottom = pair.box
    width, height = pair.target.size
    return left < -1 or top < -1 or right > width + 1 or bottom > height + 1


def _rows(number: int, pair: Pair) -> Iterator[PointRow]:
    both = zip(pair.numbers, pair.source.points, pair.target.points, strict=True)
    for point, source, target in both:
        if source is not None and target is not None:
            yield PointRow(
                number,
                pair.category,
                pair.source.image_id,
                pair.target.image_id,
                point,
                *source,
                *target,
                *pair.box,
            )


def pairs(spec: DatasetSpec) -> Iterator[Pair]:
    """Read the pairs of a split, in the order of the list, or without one of the files' names."""
    folder = f"{PAIRS}/{spec.split}"
    require_folder(spec, folder, f"put the folder {PAIRS} of SPair-71k.tar.gz there")
    files = _files(spec, folder)
    for name in _listed(spec, folder, files) or sorted(files):
        file = files[name]
        yield _read(spec.root / folder / file, f"dataset {spec.name}: {folder}/{printable(file)}")


def _files(spec: DatasetSpec, folder: str) -> dict[str, str]:
    """Find the files of pairs, by their names with colons replaced and without extension."""
    found: dict[str, str] = {}
    try:
        with os.scandir(spec.root / folder) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(".json"))
    except OSError as error:
        raise DataError(
            f"dataset {spec.name}: the folder {folder} cannot be read: {error.strerror}"
        ) from None
    for name in names:
        if not name.startswith("."):
            # A colon sorts before an underscore: of two files of one pair the archive's own counts.
            found.setdefault(_key(name.removesuffix(".json")), name)
    if not found:
        raise DataError(
            f"dataset {spec.name}: no pairs (*.json) in {printable(str(spec.root / folder))}; "
            f"{_UNPACK}, or set datasets.{spec.name}.split"
        )
    return found


def _key(name: str) -> str:
    return name.replace(":", "_")


def _listed(spec: DatasetSpec, folder: str, files: dict[str, str]) -> list[str]:
    """Read the split's list, if there is one: the keys of the pairs, in its order."""
    path = spec.root / LISTS / f"{spec.split}.txt"
    if not path.is_file():
        return []

    def problem(name: str) -> str:
        no_file = f"{printable(name[:80])} has no file in {folder}; {_UNPACK}"
        return "" if _key(name) in files else no_file

    if not (keys := names_in(path, problem, _key)):
        raise DataError(
            f"dataset {spec.name}: {LISTS}/{spec.split}.txt lists no pairs; {_UNPACK}, or remove "
            f"it to take all of {folder}"
        )
    return keys


def _read(path: Path, where: str) -> Pair:
    content = _mapping(path, where)
    category = _file_name(content, "category", where)
    source, target = (_side(content, side, category, where) for side in ("src", "trg"))
    numbers = _numbers(content.get("kps_ids"), where)
    for key, side in (("src_kps", source), ("trg_kps", target)):
        if len(side.points) != len(numbers):
            raise DataError(
                f"{where}: {key} has {plural(len(side.points), 'keypoint')}, kps_ids "
                f"{len(numbers)}; {_UNPACK}"
            )
    left, top, right, bottom = _finite(content.get("trg_bndbox"), 4, "trg_bndbox", where)
    if not (left < right and top < bottom):
        raise DataError(
            f"{where}: trg_bndbox must be left, top, right and bottom of a box, found "
            f"{_shown(content['trg_bndbox'])}; {_UNPACK}"
        )
    width, height = target.size
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise DataError(
            f"{where}: trg_bndbox {_shown(content['trg_bndbox'])} holds no pixel of its image of "
            f"{width} x {height}; {_UNPACK}, or correct it"
        )
    return Pair(where, category, source, target, (left, top, right, bottom), numbers)


def _mapping(path: Path, where: str) -> dict[str, Any]:
    try:
        # A named pipe would hang on opening.
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{where} is no file of a pair's annotations; {_UNPACK}")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error!s:.60}); {_UNPACK}") from None
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no mapping with src_kps, trg_kps, ...; {_UNPACK}")
    return content


def _side(content: dict[str, Any], side: str, category: str, where: str) -> Side:
    name = _file_name(content, f"{side}_imname", where)
    key = f"{side}_imsize"
    sizes = content.get(key)
    # Width, height and the number of colours.
    width, height = _finite(sizes[:2] if isinstance(sizes, list) else sizes, 2, key, where)
    key = f"{side}_kps"
    places = content.get(key)
    if not isinstance(places, list):
        raise DataError(
            f"{where}: {key} must be a list of places, found {_shown(places)}; {_UNPACK}"
        )
    found = [
        None if place is None else _place(place, (width, height), f"keypoint {number}", key, where)
        for number, place in enumerate(places)
    ]
    places_in = [place for place in found if place is not None]
    # Of a real object's keypoints two at least are further apart than a pixel.
    if len(places_in) > 1 and all(0 <= at <= 1 for place in places_in for at in place):
        raise DataError(
            f"{where}: {key} are all within the first pixel; places are in pixels, not in shares "
            "of the image"
        )
    return Side(f"{IMAGES}/{category}/{name}", (int(width), int(height)), found)


def _place(place: Any, size: Point, which: str, key: str, where: str) -> Point:
    """Read the place of a keypoint, which may be a pixel beyond its image."""
    x, y = _finite(place, 2, key, where)
    far = any(not -1 <= at <= n for at, n in zip((x, y), size, strict=True))
    # A pixel beyond both sides is no place, but what some tools write for what is not visible.
    if far or (x, y) == (-1, -1):
        raise DataError(
            f"{where}: {key}, {which} (counted from 0) is at {_shown(place)}, outside the image of "
            f"{size[0]:g} x {size[1]:g}; correct it, or write null for a keypoint that is not "
            "visible"
        )
    return x, y


def _finite(found: Any, count: int, key: str, where: str) -> list[float]:
    """Read so many numbers."""
    if (
        isinstance(found, list)
        and len(found) == count
        # A boolean is an int in Python; NaN compares false.
        and all(type(value) in (int, float) and abs(value) < _MAX_NUMBER for value in found)
    ):
        return [float(value) for value in found]
    raise DataError(f"{where}: {key} must hold {count} numbers, found {_shown(found)}; {_UNPACK}")


def _file_name(content: dict[str, Any], key: str, where: str) -> str:
    """Read a name that leads to no other folder."""
    name = content.get(key)
    if not is_file_name(name):
        raise DataError(
            f"{where}: {key} must be a name that leads to no other folder, found {_shown(name)}; "
            f"{_UNPACK}"
        )
    return name


def _numbers(found: Any, where: str) -> list[int]:
    """Read the numbers of keypoints, which the archive has as texts."""
    if isinstance(found, list):
        texts = [str(one) if type(one) is int else one for one in found]
        if all(isinstance(one, str) and one.isdecimal() and len(one) < 10 for one in texts):
            return [int(one) for one in texts]
    raise DataError(
        f"{where}: kps_ids must be a list of the numbers of keypoints, found {_shown(found)}; "
        f"{_UNPACK}"
    )


def _shown(value: Any) -> str:
    """Show the beginning of what was found instead."""
    try:
        return printable(f"{value!r:.60}")
    except RecursionError:
        return "lists in lists"
