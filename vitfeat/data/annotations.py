"""What is annotated beside the images of a dataset: tables of one form, whatever the layout.

A layout's own files are read once, when the index is there; jobs read these tables.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.data.images import printable
from vitfeat.data.index import COLUMNS, PLACED_COLUMNS, Index
from vitfeat.data.table import read_header, read_notes
from vitfeat.errors import DataError
from vitfeat.tables import Row, read_table


class RegionRow(NamedTuple):
    """An annotated region of an image; regions stand in the order of the index's images.

    ``level`` is ``object`` or ``part``. ``category`` is the dataset's own number, ``name`` what it
    calls the category; an object of PartImageNet is the union of its parts, and its category the
    superclass. ``crowd`` is 1 for a region of several objects that were not told apart, else 0.
    ``counts`` is the mask as COCO's compressed run-length encoding, of an image of ``height`` x
    ``width`` pixels.
    """

    image_id: str
    level: str
    category: int
    name: str
    crowd: int
    height: int
    width: int
    counts: str


class RelevanceRow(NamedTuple):
    """What an image is to a query: ``easy``, ``hard`` or ``junk``; what has no row is negative.

    A query to which nothing is relevant has one row with an empty image and grade.
    """

    query: str
    image: str
    grade: str


class FrameRow(NamedTuple):
    """A frame of a video, in the order of the sequences and of their frames, counted from 0.

    ``mask`` is the path of the annotated mask relative to the dataset's root, empty without one.
    """

    sequence: str
    frame: int
    image_id: str
    mask: str


class PointRow(NamedTuple):
    """A keypoint that both images of a pair show, in pixels of the images as they are on disk.

    Pairs are counted from 0 in the dataset's own order. The box is that of the target's object:
    left, top, right, bottom.
    """

    pair: int
    category: str
    source: str
    target: str
    point: int
    source_x: float
    source_y: float
    target_x: float
    target_y: float
    box_left: float
    box_top: float
    box_right: float
    box_bottom: float


ROWS: dict[str, type[Any]] = {
    "regions": RegionRow,
    "relevance": RelevanceRow,
    "frames": FrameRow,
    "points": PointRow,
}
"""Kinds of annotations, which are those of the folders of their tables, with their rows."""


def fingerprint(rows: Sequence[NamedTuple]) -> str:
    """Return the SHA-256 of a table's rows."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_annotations(path: str | os.PathLike[str], row: type[Row]) -> list[Row]:
    """Read a table of one of the :data:`ROWS`."""
    kind = next(kind for kind, known in ROWS.items() if known is row)
    return read_table(path, row, f"table of {kind}", "vitfeat annotations")


def describe_table(path: Path) -> Iterator[str]:
    """Yield lines that say what an index or a table of annotations holds, and its notes."""
    header = read_header(path)
    kind = next((kind for kind, row in ROWS.items() if row._fields == header), None)
    if header in (COLUMNS, PLACED_COLUMNS):
        index = Index.read(path)
        yield f"index        {path}"
        yield f"images       {len(index):,}, {index.n_classes or 'no'} classes"
        yield f"             sha256 {index.fingerprint}"
        if index.skipped:
            yield f"skipped      {len(index.skipped)}, first: {printable(index.skipped[0][0])}"
    elif kind is not None:
        rows = read_annotations(path, ROWS[kind])
        yield f"annotations  {path}"
        yield f"kind         {kind}"
        yield f"rows         {len(rows):,}"
    else:
        raise DataError(
            f"{printable(str(path))} is neither the index of a dataset nor a table of its "
            f"annotations: its columns are {printable(', '.join(header)[:80])}"
        )
    for note in read_notes(path):
        yield f"note         {note}"
