"""The layout of revisited Oxford and Paris (Radenović et al., CVPR 2018).

The root holds ``gnd_roxford5k.pkl`` or ``gnd_rparis6k.pkl`` and the folder ``jpg``. The pickle is a
dict of ``imlist`` and ``qimlist``, names of database images and of queries without their ``.jpg``,
and ``gnd``: for each query a dict of ``easy``, ``hard`` and ``junk``, places in ``imlist``, and of
``bbx``, the box around the landmark: left, top, right, bottom in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitfeat.data.annotations import RelevanceRow
from vitfeat.data.folders import Folder, Tally, one_too_deep
from vitfeat.data.images import printable
from vitfeat.data.index import Box, Index
from vitfeat.data.listing import Candidate, Listing, is_file_name, start_of
from vitfeat.data.plain_pickle import read_plain_pickle
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural

FOLDER, EXTENSION = "jpg", ".jpg"
"""Where the images are, and how their names end."""

GRADES = ("easy", "hard", "junk")
"""What an image can be to a query; an image without a grade is a negative."""


class Query(NamedTuple):
    """A query: the name of its image without extension, and the box around the landmark.

    ``graded`` has, by grade, places in the list of database images, in the file's order.
    """

    name: str
    box: Box
    graded: dict[str, list[int]]


class Annotations(NamedTuple):
    """The contents of the pickle, checked: names without extension, and the queries."""

    database: list[str]
    queries: list[Query]


def image_id(name: str) -> str:
    """Return the path of a named image relative to the root."""
    return f"{FOLDER}/{name}{EXTENSION}"


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the database images and the queries together, sorted by name, without labels.

    Of queries the box is used, or with ``query_crop: whole`` all of the image. Images are files
    directly in ``jpg``, or links.
    """
    annotations = read_annotations(spec)
    jpg = _folder(spec)
    boxes = {query.name: None if spec.whole_query else query.box for query in annotations.queries}
    named = sorted(f"{name}{EXTENSION}" for name in (*annotations.database, *boxes))
    tally.pass_over(jpg)
    if beside := len(set(jpg.images).difference(named)):
        tally.remarks.append(f"{plural(beside, 'image')} ignored, in no list of the annotations")
    rows = (
        Candidate(f"{FOLDER}/{name}", -1, "", boxes.get(name.removesuffix(EXTENSION)))
        for name in named
    )
    return Listing(rows, has_labels=False)


def relevance(spec: DatasetSpec, index: Index, notes: list[str]) -> list[RelevanceRow]:
    """Read what is relevant to the queries that are in an index, by the file's order and grade.

    Database images that are not in the index are left out, so that a query may lose all that is
    relevant to it: it then has the one row of a query to which nothing is relevant. The notes say
    how many were left out.
    """
    annotations = read_annotations(spec)
    held = set(index.image_id)
    queries = [query for query in annotations.queries if image_id(query.name) in held]
    if not queries or len(queries) == len(held):
        what = "none of the queries" if not queries else "queries alone"
        raise DataError(
            f"dataset {spec.name}: its index has {what}, {plural(len(held), 'image')} of "
            f"{len(annotations.queries) + len(annotations.database):,}; take more images "
            f"(datasets.{spec.name}.limit)"
        )
    ids = [image_id(name) for name in annotations.database]
    rows = []
    for query in queries:
        graded = [
            RelevanceRow(image_id(query.name), ids[place], grade)
            for grade in GRADES
            for place in query.graded[grade]
            if ids[place] in held
        ]
        rows += graded or [RelevanceRow(image_id(query.name), "", "")]
    if lost := len(annotations.queries) - len(queries):
        notes.append(f"{plural(lost, 'query image')} left out, not in the index")
    if lost := len(ids) - len(held.intersection(ids)):
        notes.append(f"{plural(lost, 'database image')} left out, not in the index")
    return rows


def read_annotations(spec: DatasetSpec) -> Annotations:
    """Read a dataset's pickle, and check all of it."""
    path = _pickle(spec)
    where = f"dataset {spec.name}: {printable(str(path))}"
    content = read_plain_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no dict with imlist, qimlist and gnd; fetch it again")
    database, names = (_names(content, key, where) for key in ("imlist", "qimlist"))
    if both := sorted(set(database).intersection(names)):
        raise DataError(
            f"{where}: {plural(len(both), 'name')} in both imlist and qimlist, first "
            f"{printable(both[0])}; queries are no database images in the revisited protocol"
        )
    # Before the grades: what is read of them is then bounded by files that are there.
    _require_images(spec, (*database, *names), path)
    entries = content.get("gnd")
    if not isinstance(entries, list | tuple) or len(entries) != len(names):
        raise DataError(f"{where}: gnd must be a list of an entry for each query; fetch it again")
    queries = [
        Query(name, *_entry(entry, len(database), f"{where}, gnd of {printable(name)}"))
        for name, entry in zip(names, entries, strict=True)
    ]
    return Annotations(database, queries)


def _pickle(spec: DatasetSpec) -> Path:
    """Find the annotations: the one file of their kind."""
    start_of(spec)
    root = printable(str(spec.root))
    found = sorted(spec.root.glob("gnd_*.pkl"))
    if len(found) != 1:
        names = ", ".join(printable(path.name) for path in found[:5])
        problem = (
            f"several files gnd_*.pkl in {root} ({names})"
            if found
            else f"no gnd_*.pkl in {root}{one_too_deep(spec.root, 'gnd_*.pkl')}"
        )
        raise DataError(
            f"dataset {spec.name}: {problem}; put gnd_roxford5k.pkl or gnd_rparis6k.pkl there, and "
            f"no other, or set datasets.{spec.name}.root"
        )
    return found[0]


def _folder(spec: DatasetSpec) -> Folder:
    """Read the folder of images."""
    _, top = start_of(spec)
    if FOLDER not in top.folders:
        raise DataError(
            f"dataset {spec.name}: no folder {FOLDER} in {printable(str(spec.root))}; put the "
            "images there, those of the database and the queries"
        )
    return Folder.read(spec.root / FOLDER)


def _require_images(spec: DatasetSpec, names: Sequence[str], path: Path) -> None:
    found = set(_folder(spec).images)
    missing = sorted(name for name in names if f"{name}{EXTENSION}" not in found)
    if missing:
        raise DataError(
            f"dataset {spec.name}: {len(missing):,} of {plural(len(names), 'image')} that "
            f"{printable(path.name)} names missing in {printable(str(spec.root / FOLDER))}, first "
            f"{printable(missing[0])}{EXTENSION}; put all of them there"
        )


def _names(content: dict[Any, Any], key: str, where: str) -> list[str]:
    """Return a list of names, each of a file directly in the folder of images."""
    found = content.get(key)
    names = found.ravel().tolist() if isinstance(found, np.ndarray) else found
    if not isinstance(names, list | tuple) or not names:
        raise DataError(f"{where}: {key} must be a list of names; fetch it again")
    for name in names:
        if not is_file_name(name):
            shown = printable(f"{name!r:.60}") if isinstance(name, str) else type(name).__name__
            raise DataError(
                f"{where}: {key} holds {shown}, which is no name of an image in {FOLDER}; names "
                "have no extension and lead to no other folder"
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: {printable(name)} stands in {key} twice; remove one")
        seen.add(name)
    return list(names)


def _entry(entry: Any, n_images: int, where: str) -> tuple[Box, dict[str, list[int]]]:
    """Return the box and the graded images of a query."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: no dict with {', '.join(GRADES)} and bbx; fetch it again")
    if "ok" in entry and not set(GRADES[:2]) & set(entry):
        raise DataError(
            f"{where} is graded ok, so these are the original annotations; take those of the "
            "revisited datasets, gnd_roxford5k.pkl or gnd_rparis6k.pkl"
        )
    graded: dict[str, list[int]] = {}
    seen: dict[int, str] = {}
    for grade in GRADES:
        graded[grade] = _places(entry.get(grade), n_images, f"{where}: {grade}")
        for place in graded[grade]:
            if place in seen:
                raise DataError(
                    f"{where}: the image at place {place} of imlist is {seen[place]} and {grade}; "
                    "it can be one, once"
                )
            seen[place] = grade
    return _box(entry.get("bbx"), where), graded


def _places(found: Any, n_images: int, where: str) -> list[int]:
    """Return places in the list of database images."""
    if isinstance(found, np.ndarray):
        # Without values an array has NumPy's usual type, which is no whole number.
        whole = found.dtype.kind in "iu" or not found.size
        values = found.ravel().tolist() if whole else None
    else:
        values = found
    # A boolean is an int in Python.
    if not isinstance(values, list | tuple) or any(type(value) is not int for value in values):
        raise DataError(f"{where} must be a list of places in imlist; fetch it again")
    if any(not 0 <= value < n_images for value in values):
        raise DataError(
            f"{where} holds a place outside imlist, which has {plural(n_images, 'image')}, from 0"
        )
    return list(values)


def _box(found: Any, where: str) -> Box:
    values: Sequence[Any] | None = (
        found.ravel().tolist() if isinstance(found, np.ndarray) and found.size == 4 else found
    )
    if (
        isinstance(values, list | tuple)
        and len(values) == 4
        and all(isinstance(value, int | float) and abs(value) < 1e9 for value in values)
    ):
        left, top, right, bottom = map(float, values)
        if left < right and top < bottom:
            return left, top, right, bottom
    raise DataError(
        f"{where}: bbx must be four numbers, left, top, right and bottom of a box; fetch it again"
    )
