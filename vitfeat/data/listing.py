"""What layouts find, and the checks that they share: folders, files, and sizes of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeGuard

from vitfeat.data.folders import Folder, Tally, one_too_deep
from vitfeat.data.images import ImageError, facts_of, printable, read_bytes
from vitfeat.data.index import Box, Index, Place
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural


class Candidate(NamedTuple):
    """An image that a layout found; whether it can be used is not known yet."""

    image_id: str
    """POSIX path relative to the dataset's root, or what a container calls it."""
    label: int
    """-1 without labels."""
    class_name: str
    """Empty without labels."""
    crop: Box | None = None
    """The part of the image that is used; None for all of it."""
    place: Place | None = None
    """Where it stands in a container; None for a file of its own."""


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, sorted by the parts of their paths, found as they are asked for."""

    candidates: Iterator[Candidate]
    has_labels: bool


class Noticed:
    """What was noticed of images, regions or sequences: how many of each, and the first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, name: str) -> None:
        """Count one."""
        self._counts[what] += 1
        self._first.setdefault(what, name)

    def notes(self, noun: str, words: Mapping[str, str], first: str = "first") -> Iterator[str]:
        """Yield a line for people about each, in the order of the words that say it."""
        for what, text in words.items():
            if count := self._counts[what]:
                yield f"{plural(count, noun)} {text}; {first} {printable(self._first[what])}"


def parts_of(image_id: str) -> list[str]:
    """Return what image ids are sorted by."""
    return image_id.split("/")


def is_file_name(name: object) -> TypeGuard[str]:
    """Tell whether something read is a name that leads to no other folder."""
    if not isinstance(name, str) or not name or name.startswith("."):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not {"/", "\\", "\0"} & set(name)


def stays_in(folder: Path, name: str) -> bool:
    """Tell whether a path below a folder, which may be a link itself, is no link out of it."""
    return (folder / name).resolve().is_relative_to(folder.resolve())


def require_root(spec: DatasetSpec) -> None:
    """Check that a dataset's root is a folder."""
    if not spec.root.is_dir():
        what = "is no folder" if spec.root.exists() else "does not exist"
        raise DataError(
            f"dataset {spec.name}: the folder {printable(str(spec.root))} {what}; "
            f"set datasets.{spec.name}.root"
        )


def start_of(spec: DatasetSpec) -> tuple[str, Folder]:
    """Read the folder that the layout starts from: the root, or the split within it."""
    require_root(spec)
    top = Folder.read(spec.root)
    if spec.split is None:
        return ".", top
    if spec.split not in top.folders:
        there = ", ".join(map(printable, top.folders[:10])) or "no folders"
        raise DataError(
            f"dataset {spec.name}: no split {spec.split} in {printable(str(spec.root))}, "
            f"which holds {there}; set datasets.{spec.name}.split"
        )
    return spec.split, Folder.read(spec.root / spec.split)


def where(spec: DatasetSpec) -> Path:
    """Return the folder that images are looked for in."""
    return spec.root / (spec.split or "")


def no_images(spec: DatasetSpec, tally: Tally, expected: str) -> DataError:
    """Make the error of a folder without images, of which a search has counted other files."""
    others = "".join(f"; {note}" for note in tally.unread_notes())
    return DataError(
        f"dataset {spec.name}: no images in {printable(str(where(spec)))} (.jpg, .png, .tif, .webp "
        f"and so on){others}; {expected}; set datasets.{spec.name}.root"
    )


def require_folder(spec: DatasetSpec, folder: str, remedy: str) -> None:
    """Check that a folder of the layout is there; the remedy says what brings it there."""
    require_root(spec)
    if not (spec.root / folder).is_dir():
        raise _missing(spec, folder, f"the folder {folder}", remedy)


def require_file(spec: DatasetSpec, file: str, remedy: str) -> None:
    """Check that a file of the layout is there; as :func:`require_folder`."""
    if not (spec.root / file).is_file():
        raise _missing(spec, file, file, remedy)


def _missing(spec: DatasetSpec, path: str, what: str, remedy: str) -> DataError:
    return DataError(
        f"dataset {spec.name}: {printable(what)} is missing in {printable(str(spec.root))}"
        f"{one_too_deep(spec.root, path)}; {remedy}, or set datasets.{spec.name}.root or split"
    )


_REMEDY = "annotations fit the images that they were made in only, restore the original"


def require_size(
    spec: DatasetSpec,
    index: Index,
    row: int,
    annotated: tuple[int, int],
    where: str,
    remedy: str = _REMEDY,
) -> None:
    """Check that an image is as large as what is annotated in it: its width and height.

    `where` is the file that says so, `remedy` what to do where no orientation explains it.
    """
    size = int(index.width[row]), int(index.height[row])
    if annotated == size:
        return
    name = index.image_id[row]
    says = (
        f"{where}: {printable(name)} has {annotated[0]} x {annotated[1]} pixels by it, but "
        f"{size[0]} x {size[1]}"
    )
    if annotated == size[::-1]:
        orientation = _orientation(spec, name)
        if orientation >= 5:
            is_turned = index.orientation[row] != 1
            taken, other = ("turned", "stored") if is_turned else ("stored", "exif")
            raise DataError(
                f"{says} as {taken}: its EXIF orientation {orientation} turns it by 90 degrees, "
                f"and what was annotated is the other; set datasets.{spec.name}.orientation: "
                f"{other}"
            )
        says = f"{says} in truth, turned by 90 degrees (by an EXIF orientation that was lost?)"
    else:
        says = f"{says} in truth"
    raise DataError(f"{says}; {remedy}")


def _orientation(spec: DatasetSpec, name: str) -> int:
    try:
        data = read_bytes(spec.root / name, name)
        return facts_of(data, name, min_side=1, max_megapixels=spec.max_megapixels).orientation
    except ImageError:
        return 1


def untold(index: Index) -> list[str]:
    """Say of how many turned images no size tells whether their annotations are of the turned."""
    names = [
        row.image_id
        for row in index.rows()
        if row.orientation in (2, 3, 4) or (row.orientation >= 5 and row.width == row.height)
    ]
    if not names:
        return []
    return [
        f"{plural(len(names), 'image')} turned by EXIF to the same size: what is annotated in them "
        f"is taken to be of the turned image; first {printable(names[0])}"
    ]
