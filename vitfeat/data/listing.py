"""What a layout gives: the images of a dataset, with labels; and what helps to find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vitfeat.data.companions import Companion
from vitfeat.data.folders import Folder, Tally
from vitfeat.data.images import printable
from vitfeat.data.views.settings import ViewSettings
from vitfeat.errors import DataError

if TYPE_CHECKING:
    from vitfeat.data.spec import DatasetSpec

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, where an image spans (0, 0, width, height)."""


class Candidate(NamedTuple):
    """An image that a layout found; whether it can be used is not known yet."""

    image_id: str
    """POSIX path relative to the dataset's root."""
    label: int
    """-1 without labels."""
    class_name: str
    """Empty without labels."""
    crop: Box | None = None
    """The part of the image that is used; None for all of it."""


@dataclass(frozen=True)
class Listing:
    """What a layout found."""

    candidates: Iterator[Candidate]
    has_labels: bool


@dataclass(frozen=True)
class Layout:
    """A way to lay out a dataset, and the settings that it takes.

    Attributes
    ----------
    find
        Lists the images.
    split
        Whether it knows splits.
    reads_list
        Whether it reads a list file.
    companion
        What is annotated beside the images, if anything.
    settings
        Keys of a dataset that it alone takes.
    view
        How its images usually become inputs.
    """

    find: Callable[[DatasetSpec, Tally], Listing]
    split: Literal["never", "optional", "always"] = "never"
    reads_list: bool = False
    companion: Companion | None = None
    settings: tuple[str, ...] = ()
    view: ViewSettings = field(default=ViewSettings())


def start_of(spec: DatasetSpec) -> tuple[str, Folder]:
    """Read the folder that the layout starts from: the root, or the split within it.

    Raises
    ------
    DataError
        It does not exist.
    """
    if not spec.root.is_dir():
        what = "is no folder" if spec.root.exists() else "does not exist"
        raise DataError(
            f"dataset {spec.name}: the folder {printable(str(spec.root))} {what}; "
            f"set datasets.{spec.name}.root"
        )
    top = Folder.read(spec.root)
    if spec.split is None:
        return ".", top
    if spec.split not in top.folders:
        found = ", ".join(map(printable, top.folders[:10])) or "no folders"
        raise DataError(
            f"dataset {spec.name}: no split {spec.split} in {printable(str(spec.root))}, "
            f"which holds {found}; set datasets.{spec.name}.split"
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
