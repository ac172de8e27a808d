"""The index of a dataset: which images, with which labels and which contents."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.folders import Tally
from vitfeat.data.images import TRAITS, Facts, printable, turned_size
from vitfeat.data.layouts import LAYOUTS
from vitfeat.data.listing import Box, Candidate, Listing
from vitfeat.data.scan import Contents, examine
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.table import damaged, read_notes, read_table, write_notes, write_table
from vitfeat.errors import DataError
from vitfeat.text import plural

logger = logging.getLogger(__name__)

COLUMNS = (
    *("image_id", "label", "class_name", "width", "height", "n_bytes", "sha256"),
    *("orientation", "crop"),
)
"""Of an index's table."""

_SKIPPED_COLUMNS = ("image_id", "reason")

# At most 18 digits, which int64 holds.
_LABEL = re.compile("-1|0|[1-9][0-9]{0,17}")
_ORIENTATION = re.compile("[1-8]")
_POSITIVE = re.compile("[1-9][0-9]{0,17}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a dataset, one row each, sorted by the parts of their paths.

    Parameters
    ----------
    image_id
        POSIX path relative to the dataset's root.
    label
        int64, shape (n,); -1 without labels.
    class_name
        Empty without a name.
    width, height
        int64, shape (n,); pixels, once an image is turned.
    n_bytes
        int64, shape (n,); size of the file.
    sha256
        Of the file's contents, in lower-case hexadecimal.
    skipped
        Image id and reason of every image that was left out as unusable.
    orientation
        int64, shape (n,): the EXIF orientation that is applied to each image when it is read; 1,
        the usual, for none.
    crop
        The part of each image that is used, in its pixels; None, the usual, for all of it.
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
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.orientation):
            object.__setattr__(self, "orientation", np.ones(len(self.image_id), dtype=np.int64))
        if not self.crop:
            object.__setattr__(self, "crop", [None] * len(self.image_id))

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels; a layout gives them to all or to none."""
        return bool(len(self)) and bool(self.label.min() >= 0)

    @property
    def n_classes(self) -> int:
        """How many different labels there are, 0 without labels; they need not be consecutive."""
        return len(np.unique(self.label)) if self.has_labels else 0

    def seen_size(self, row: int) -> tuple[int, int]:
        """Return width and height of the part of an image that a view is applied to."""
        return size_of_part(int(self.width[row]), int(self.height[row]), self.crop[row])

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every row's image id, label, contents, orientation and crop.

        Wherever the files are. What is usual of a row is not told, so that an index without any
        turned image is what it was before there were turned ones.
        """
        digest = hashlib.sha256()
        columns = (self.label.tolist(), self.sha256, self.orientation.tolist(), self.crop)
        for image_id, label, sha256, orientation, crop in zip(self.image_id, *columns, strict=True):
            row: list[object] = [image_id, label, sha256]
            if orientation != 1:
                row.append(orientation)
            if crop is not None:
                row.append(crop)
            # JSON, as it marks where a field ends whatever stands in it.
            digest.update(json.dumps(row).encode("ascii") + b"\n")
        return digest.hexdigest()

    def only(self, rows: Sequence[int]) -> Index:
        """Return the index of some of the images, in the order of their rows."""
        return replace(
            self,
            image_id=[self.image_id[row] for row in rows],
            label=self.label[list(rows)],
            class_name=[self.class_name[row] for row in rows],
            width=self.width[list(rows)],
            height=self.height[list(rows)],
            n_bytes=self.n_bytes[list(rows)],
            sha256=[self.sha256[row] for row in rows],
            orientation=self.orientation[list(rows)],
            crop=[self.crop[row] for row in rows],
        )

    def write(self, csv_path: Path) -> None:
        """Write the index; beside it what was skipped (``{stem}.skipped.csv``), and the notes.

        Each file appears whole or not at all, the index last.
        """
        write_notes(csv_path, self.notes)
        write_table(_skipped_path(csv_path), _SKIPPED_COLUMNS, self.skipped)
        columns = [getattr(self, name) for name in COLUMNS[:-1]]
        crops = ["" if c is None else " ".join(map(repr, c)) for c in self.crop]
        write_table(csv_path, COLUMNS, zip(*columns, crops, strict=True))

    @staticmethod
    def read(csv_path: Path) -> Index:
        """Read what :meth:`write` wrote.

        Raises
        ------
        DataError
            If one of the two files is absent or damaged; names the file and the line.
        """
        seen: set[str] = set()
        rows = []
        for line, fields in read_table(csv_path, COLUMNS):
            row = _Row.parse(fields)
            if row is None:
                raise damaged(csv_path, line, "a field has a value that it cannot have")
            if row.image_id in seen:
                raise damaged(csv_path, line, f"{printable(row.image_id)} stands there twice")
            seen.add(row.image_id)
            rows.append(row)
        skipped_path = _skipped_path(csv_path)
        skipped = [(row[0], row[1]) for _, row in read_table(skipped_path, _SKIPPED_COLUMNS)]
        return _from_rows(rows, skipped, read_notes(csv_path))


class _Row(NamedTuple):
    """A row, in the order of the columns."""

    image_id: str
    label: int
    class_name: str
    width: int
    height: int
    n_bytes: int
    sha256: str
    orientation: int = 1
    crop: Box | None = None

    @staticmethod
    def parse(fields: list[str]) -> _Row | None:
        """Read a row's fields; None if one of them cannot be."""
        image_id, label, class_name, width, height, n_bytes, sha256, orientation, crop = fields
        counts = all(_POSITIVE.fullmatch(text) for text in (width, height, n_bytes))
        if not (image_id and _LABEL.fullmatch(label) and counts and _SHA256.fullmatch(sha256)):
            return None
        if not _ORIENTATION.fullmatch(orientation):
            return None
        sizes = int(width), int(height), int(n_bytes)
        row = _Row(image_id, int(label), class_name, *sizes, sha256, int(orientation))
        if not crop:
            return row
        box = _parse_crop(crop, row.width, row.height)
        return None if box is None else row._replace(crop=box)


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


def size_of_part(width: int, height: int, crop: Box | None) -> tuple[int, int]:
    """Return width and height in pixels of a part of an image, None being all of it."""
    if crop is None:
        return width, height
    left, top, right, bottom = pixels_of(crop)
    return right - left, bottom - top


def _skipped_path(csv_path: Path) -> Path:
    return csv_path.with_name(f"{csv_path.stem}.skipped.csv")


def _from_rows(rows: list[_Row], skipped: list[tuple[str, str]], notes: list[str]) -> Index:
    def numbers(place: int) -> NDArray[np.int64]:
        return np.array([row[place] for row in rows], dtype=np.int64)

    return Index(
        image_id=[row.image_id for row in rows],
        label=numbers(1),
        class_name=[row.class_name for row in rows],
        width=numbers(3),
        height=numbers(4),
        n_bytes=numbers(5),
        sha256=[row.sha256 for row in rows],
        skipped=skipped,
        orientation=numbers(7),
        crop=[row.crop for row in rows],
        notes=notes,
    )


def build_index(
    spec: DatasetSpec,
    *,
    workers: int = 1,
    candidates: Sequence[Candidate] | None = None,
) -> Index:
    """Find a dataset's images and look at each once.

    With ``on_error: skip`` every image is decoded fully, so that what stands in the index is known
    to decode. With ``on_error: stop`` the header is looked at: the extraction decodes anyway, and
    stops at an image that it cannot decode.

    Parameters
    ----------
    spec
        The dataset.
    workers
        Processes that read images; 1 reads in this one. The result is the same.
    candidates
        Images below the root, none twice, in the place of those that the layout finds.

    Returns
    -------
    Index
        Sorted by the parts of the paths, or in the order of the candidates.

    Raises
    ------
    DataError
        If the folder or its images cannot be used as the layout expects.
    ConfigError
        If ``per_class`` is set for images without labels.
    """
    tally = Tally()
    seen = _Seen(spec)
    if candidates is None:
        listing = LAYOUTS[spec.layout].find(spec, tally)
    else:
        listing = Listing(iter(candidates), has_labels=any(c.label >= 0 for c in candidates))
    if spec.per_class is not None and not listing.has_labels:
        raise spec.error("per_class", "the images have no labels; use limit")
    rows: list[_Row] = []
    skipped: list[tuple[str, str]] = []
    for candidate, result in examine(listing.candidates, spec, workers):
        if isinstance(result, Contents):
            orientation = result.facts.orientation if spec.orientation == "exif" else 1
            size = turned_size(result.facts.width, result.facts.height, orientation)
            rows.append(
                _Row(
                    image_id=candidate.image_id,
                    label=candidate.label,
                    class_name=candidate.class_name,
                    width=size[0],
                    height=size[1],
                    n_bytes=result.n_bytes,
                    sha256=result.sha256,
                    orientation=orientation,
                    crop=_within(spec, candidate, size, orientation),
                )
            )
            seen.add(candidate, result.facts, rows[-1])
        elif spec.on_error == "stop":
            raise DataError(
                f"dataset {spec.name}: {result}; repair or remove the file, or set "
                f"datasets.{spec.name}.on_error: skip"
            )
        else:
            skipped.append((candidate.image_id, result.reason))
    if not rows:
        first, reason = skipped[0]
        raise DataError(
            f"dataset {spec.name}: none of its {len(skipped)} images can be used, the first is "
            f"{printable(first)}: {reason}"
        )
    index = _from_rows(rows, [*skipped, *tally.doubles], [])
    index.notes.extend([*seen.notes(), *_noticed(spec, index, skipped), *tally.notes()])
    classes = index.n_classes or "no"
    logger.info(f"dataset {spec.name}: {plural(len(index), 'image')}, {classes} classes")
    for note in index.notes:
        logger.warning(f"dataset {spec.name}: {note}")
    return index


class _Seen:
    """What was seen of the images of an index that changes their numbers, with the first of each.

    Parameters
    ----------
    spec
        The dataset.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, candidate: Candidate, facts: Facts, row: _Row) -> None:
        """Count an image that is used."""
        found = list(facts.traits)
        if facts.orientation != 1:
            found.append("orientation")
        if candidate.crop is not None and row.crop is not None:
            beyond = max(abs(a - b) for a, b in zip(candidate.crop, row.crop, strict=True))
            found += ["cut"] if beyond > 1 else []
        for name in found:
            self._first.setdefault(name, candidate.image_id)
            self._counts[name] += 1

    def notes(self) -> Iterator[str]:
        """Yield a line for people about each."""
        if self._spec.orientation == "exif":
            orientation = "turned upright as the EXIF orientation says"
        else:
            places = LAYOUTS[self._spec.layout].companion
            annotated = ", and so is what is annotated in them" if places else ""
            orientation = (
                "with an EXIF orientation, used as stored and not as viewers show them"
                f"{annotated} (datasets.{self._spec.name}.orientation: exif turns them)"
            )
        cut = "whose box reaches beyond the image, cut at its border"
        for name, words in {"orientation": orientation, **TRAITS, "cut": cut}.items():
            if count := self._counts[name]:
                yield f"{plural(count, 'image')} {words}; first {printable(self._first[name])}"


def _within(
    spec: DatasetSpec, candidate: Candidate, size: tuple[int, int], orientation: int
) -> Box | None:
    """Return the part of an image that is used, as far as it lies within the image.

    Raises
    ------
    DataError
        No pixel of it does; or the image is turned, and nothing tells whether its box is.
    """
    if candidate.crop is None:
        return None
    name = printable(candidate.image_id)
    if orientation != 1:
        raise DataError(
            f"dataset {spec.name}: {name} is turned by its EXIF orientation {orientation}, and its "
            "box does not say whether it is of the turned image; set "
            f"datasets.{spec.name}.orientation: stored, or query_crop: whole"
        )
    width, height = size
    left, top, right, bottom = candidate.crop
    box = (
        max(0.0, float(left)),
        max(0.0, float(top)),
        min(float(width), float(right)),
        min(float(height), float(bottom)),
    )
    x0, y0, x1, y1 = pixels_of(box) if all(map(math.isfinite, box)) else (0, 0, 0, 0)
    if not (x0 < x1 and y0 < y1):
        raise DataError(
            f"{name}: the box {candidate.crop} holds no pixel of the image of {width} x {height}; "
            "correct the annotation"
        )
    return box


def _noticed(spec: DatasetSpec, index: Index, skipped: list[tuple[str, str]]) -> Iterator[str]:
    """Yield what is to be known of the images of an index."""
    if skipped:
        first, reason = skipped[0]
        yield (
            f"{plural(len(skipped), 'unusable image')} skipped, first {printable(first)}: {reason}"
        )
    copies: dict[str, list[str]] = {}
    for image_id, sha256 in zip(index.image_id, index.sha256, strict=True):
        copies.setdefault(sha256, []).append(image_id)
    repeated = [same for same in copies.values() if len(same) > 1]
    if repeated:
        yield (
            f"{plural(len(index) - len(copies), 'image')} byte-identical to others, which biases "
            f"measures of similarity, first {printable(repeated[0][1])} of "
            f"{printable(repeated[0][0])}"
        )
    if spec.per_class is not None and spec.limit is None:
        for name, count in Counter(index.class_name).items():
            if count < spec.per_class:
                yield f"class {printable(name)} has {plural(count, 'image')}, fewer than per_class"
