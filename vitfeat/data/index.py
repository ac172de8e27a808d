"""The index of a dataset: which images, with which labels and which contents."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.images import printable
from vitfeat.data.table import damaged, read_notes, read_table, write_notes, write_table

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, where an image spans (0, 0, width, height)."""


class Place(NamedTuple):
    """Where an image stands that is no file of its own."""

    container: str
    """POSIX path relative to the dataset's root; ``.`` where the root is the container."""
    part: str
    """What of the container holds images (a column, an array) and how."""
    offset: int
    """Where in it: a byte, a row, or a frame's time stamp."""
    n_bytes: int = -1
    """Size of the image, where it is known without reading it."""


_SKIPPED_COLUMNS = ("image_id", "reason")

# At most 18 digits, which int64 holds.
_POSITIVE = "[1-9][0-9]{0,17}"
_SIZE = re.compile(_POSITIVE)

# Of the columns that not every text can be in, by their places.
_PATTERNS = (
    (0, re.compile(".+", re.DOTALL)),
    (1, re.compile(f"-1|0|{_POSITIVE}")),
    *((place, _SIZE) for place in (3, 4, 5)),
    (6, re.compile("[0-9a-f]{64}")),
    (7, re.compile("[1-8]")),
    (9, re.compile(".+", re.DOTALL)),
    (11, re.compile(f"-?{_POSITIVE}|0")),
)


class Row(NamedTuple):
    """An image of an index: its fields are the columns of the table.

    ``image_id`` is a POSIX path relative to the dataset's root, or what its container calls it.
    ``label`` is -1 and ``class_name`` empty without labels. ``width`` and ``height`` are in pixels,
    once the image is turned; ``orientation`` is the EXIF orientation that is applied when it is
    read, 1 for none. ``crop`` is the part that is used, in its pixels; None for all of it. The last
    three are those of :class:`Place`, empty for files; an index of files has no such columns.
    """

    image_id: str
    label: int
    class_name: str
    width: int
    height: int
    n_bytes: int
    sha256: str
    orientation: int = 1
    crop: Box | None = None
    container: str = ""
    part: str = ""
    offset: int = 0

    @property
    def place(self) -> Place | None:
        """Where it stands in a container; None for a file of its own."""
        if not self.container:
            return None
        return Place(self.container, self.part, self.offset, self.n_bytes)

    @property
    def seen_size(self) -> tuple[int, int]:
        """Width and height of the part of it that a view is applied to."""
        if self.crop is None:
            return self.width, self.height
        left, top, right, bottom = pixels_of(self.crop)
        return right - left, bottom - top

    @staticmethod
    def parse(fields: list[str]) -> Row | None:
        """Read a row's fields; None if one of them cannot be."""
        for place, pattern in _PATTERNS:
            if place < len(fields) and not pattern.fullmatch(fields[place]):
                return None
        image_id, label, class_name, width, height, n_bytes, sha256, orientation, crop = fields[:9]
        sizes = int(width), int(height), int(n_bytes)
        row = Row(image_id, int(label), class_name, *sizes, sha256, int(orientation))
        if len(fields) > 9:
            row = row._replace(container=fields[9], part=fields[10], offset=int(fields[11]))
        if not crop:
            return row
        box = _parse_crop(crop, row.width, row.height)
        return None if box is None else row._replace(crop=box)


COLUMNS = Row._fields[:9]
"""Of an index's table."""
PLACED_COLUMNS = Row._fields
"""Of one whose images stand in containers."""

_NUMBERS = ("label", "width", "height", "n_bytes", "orientation", "offset")


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a dataset in their order, the columns of :class:`Row`.

    They are sorted by the parts of their paths, but for those of containers that are read in order.

    Attributes
    ----------
    label, width, height, n_bytes, orientation, offset
        int64, shape (n,).
    skipped
        Image id and reason of every image that was left out as unusable.
    notes
        What was noticed while the index was made, a line each for people.
    """

    image_id: list[str]
    label: NDArray[np.int64]
    class_name: list[str]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    sha256: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    orientation: NDArray[np.int64] = field(default_factory=lambda: np.ones(0, dtype=np.int64))
    crop: list[Box | None] = field(default_factory=list)
    container: list[str] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    offset: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.image_id)
        usual = {
            "orientation": np.ones(n, dtype=np.int64),
            "offset": np.zeros(n, dtype=np.int64),
            "crop": [None] * n,
            "container": [""] * n,
            "part": [""] * n,
        }
        for name, value in usual.items():
            if not len(getattr(self, name)):
                object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.image_id)

    @staticmethod
    def of(rows: Iterable[Row], skipped: list[tuple[str, str]], notes: list[str]) -> Index:
        """Make the index of images."""
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in Row._fields]
        values: dict[str, Any] = dict(zip(Row._fields, columns, strict=True))
        values |= {name: np.array(values[name], dtype=np.int64) for name in _NUMBERS}
        return Index(**values, skipped=skipped, notes=notes)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels; a layout gives them to all or to none."""
        return bool(len(self)) and bool(self.label.min() >= 0)

    @property
    def n_classes(self) -> int:
        """How many different labels there are, 0 without labels; they need not be consecutive."""
        return len(np.unique(self.label)) if self.has_labels else 0

    @property
    def classes(self) -> dict[int, str]:
        """Name of each label that is there."""
        names = {int(k): name for k, name in zip(self.label, self.class_name, strict=True)}
        return {label: names[label] for label in sorted(names) if label >= 0}

    def row(self, number: int) -> Row:
        """Return one of the images."""
        values = (getattr(self, name)[number] for name in Row._fields)
        return Row._make(v.item() if isinstance(v, np.int64) else v for v in values)

    def rows(self) -> Iterator[Row]:
        """Yield the images."""
        columns = (getattr(self, name) for name in Row._fields)
        lists = (c.tolist() if isinstance(c, np.ndarray) else c for c in columns)
        yield from map(Row._make, zip(*lists, strict=True))

    def seen_size(self, row: int) -> tuple[int, int]:
        """Return width and height of the part of an image that a view is applied to."""
        return self.row(row).seen_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every row's image id, label, contents, orientation and crop.

        Wherever the files are. What is usual of a row is not told, so that an index without any
        turned image is what it was before there were turned ones.
        """
        digest = hashlib.sha256()
        for row in self.rows():
            told: list[object] = [row.image_id, row.label, row.sha256]
            if row.orientation != 1:
                told.append(row.orientation)
            if row.crop is not None:
                told.append(row.crop)
            # JSON, as it marks where a field ends whatever stands in it.
            digest.update(json.dumps(told).encode("ascii") + b"\n")
        return digest.hexdigest()

    def only(self, numbers: Sequence[int]) -> Index:
        """Return the index of some of the images, in the order of the row numbers."""
        return Index.of(map(self.row, numbers), self.skipped, self.notes)

    def write(self, csv_path: Path) -> None:
        """Write the index; beside it what was skipped (``{stem}.skipped.csv``), and the notes.

        Each file appears whole or not at all, the index last.
        """
        write_notes(csv_path, self.notes)
        write_table(_skipped_path(csv_path), _SKIPPED_COLUMNS, self.skipped)
        header = PLACED_COLUMNS if any(self.container) else COLUMNS
        rows = (row._replace(crop=" ".join(map(repr, row.crop or ()))) for row in self.rows())  # type: ignore[arg-type]
        write_table(csv_path, header, (row[: len(header)] for row in rows))

    @staticmethod
    def read(csv_path: Path) -> Index:
        """Read what :meth:`write` wrote."""
        rows: dict[str, Row] = {}
        for line, fields in read_table(csv_path, COLUMNS, PLACED_COLUMNS):
            row = Row.parse(fields)
            if row is None:
                raise damaged(csv_path, line, "a field has a value that it cannot have")
            if rows.setdefault(row.image_id, row) is not row:
                raise damaged(csv_path, line, f"{printable(row.image_id)} stands there twice")
        skipped = read_table(_skipped_path(csv_path), _SKIPPED_COLUMNS)
        return Index.of(
            rows.values(), [(name, reason) for _, (name, reason) in skipped], read_notes(csv_path)
        )


def _parse_crop(text: str, width: int, height: int) -> Box | None:
    """Read a box that holds a pixel and lies within the image; None if it cannot be."""
    try:
        left, top, right, bottom = map(float, text.split(" "))
    except ValueError:
        return None
    # NaN compares false.
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        return None
    x0, y0, x1, y1 = pixels_of((left, top, right, bottom))
    return (left, top, right, bottom) if x0 < x1 and y0 < y1 else None


def pixels_of(crop: Box) -> tuple[int, int, int, int]:
    """Round a box to whole pixels, halves to even, as Pillow crops."""
    left, top, right, bottom = map(round, crop)
    return left, top, right, bottom


def _skipped_path(csv_path: Path) -> Path:
    return csv_path.with_name(f"{csv_path.stem}.skipped.csv")
