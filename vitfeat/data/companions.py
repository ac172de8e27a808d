"""What is annotated beside the images of a dataset: tables of one form, whatever the layout.

A layout's own files are read once, when the index is there; jobs read these tables.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitfeat.tables import read_table

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.spec import DatasetSpec


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


@dataclass(frozen=True)
class Companion:
    """A kind of annotations.

    Attributes
    ----------
    kind
        Its name, and that of the folder that its tables stand in.
    row
        The NamedTuple of its table.
    read
        Reads a layout's own files; adds lines for people about what it noticed to a list.
    files
        Patterns of those files below the dataset's root, where ``{split}`` stands for the split.
    """

    kind: str
    row: type[Any]
    read: Callable[[DatasetSpec, Index, list[str]], list[Any]]
    files: tuple[str, ...]

    def paths(self, spec: DatasetSpec) -> list[Path]:
        """Return the files of a dataset that are there, sorted."""
        split = glob.escape(spec.split or "")
        patterns = (pattern.replace("{split}", split) for pattern in self.files)
        return sorted(path for pattern in patterns for path in spec.root.glob(pattern))


def fingerprint(rows: Sequence[NamedTuple]) -> str:
    """Return the SHA-256 of a table's rows."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_regions(path: str | os.PathLike[str]) -> list[RegionRow]:
    """Read a table of regions."""
    return read_table(path, RegionRow, "table of regions", "vitfeat annotations")


def read_relevance(path: str | os.PathLike[str]) -> list[RelevanceRow]:
    """Read a table of what is relevant to queries."""
    return read_table(path, RelevanceRow, "table of relevance", "vitfeat annotations")


def read_frames(path: str | os.PathLike[str]) -> list[FrameRow]:
    """Read a table of frames."""
    return read_table(path, FrameRow, "table of frames", "vitfeat annotations")


def read_points(path: str | os.PathLike[str]) -> list[PointRow]:
    """Read a table of keypoints."""
    return read_table(path, PointRow, "table of keypoints", "vitfeat annotations")
