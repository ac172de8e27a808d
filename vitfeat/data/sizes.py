"""Annotations and images must be of one size: what is said where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.data.images import ImageError, facts_of, printable, read_bytes
from vitfeat.errors import DataError
from vitfeat.text import plural

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.spec import DatasetSpec


_REMEDY = "annotations fit the images that they were made in only, restore the original"


def require_size(
    spec: DatasetSpec,
    index: Index,
    row: int,
    annotated: tuple[int, int],
    where: str,
    remedy: str = _REMEDY,
) -> None:
    """Check that an image is as large as what is annotated in it.

    Parameters
    ----------
    spec, index, row
        The dataset, its index, and the image's row in it.
    annotated
        Width and height of the image by its annotation.
    where
        The file that says so, for the message.
    remedy
        What to do about it, where no orientation explains it.

    Raises
    ------
    DataError
        It is not; the message names an EXIF orientation that explains it.
    """
    found = int(index.width[row]), int(index.height[row])
    if annotated == found:
        return
    name = index.image_id[row]
    says = (
        f"{where}: {printable(name)} has {annotated[0]} x {annotated[1]} pixels by it, but "
        f"{found[0]} x {found[1]}"
    )
    if annotated == found[::-1]:
        orientation = _orientation(spec, name)
        if orientation >= 5:
            taken, other = (
                ("turned", "stored") if index.orientation[row] != 1 else ("stored", "exif")
            )
            raise DataError(
                f"{says} as {taken}: its EXIF orientation {orientation} turns it by 90 degrees, "
                f"and what was annotated is the other; set datasets.{spec.name}.orientation: "
                f"{other}"
            )
        says = f"{says} in truth, turned by 90 degrees (by an EXIF orientation that was lost?)"
    else:
        says = f"{says} in truth"
    raise DataError(f"{says}; {remedy}")


def untold(index: Index) -> list[str]:
    """Say of how many turned images no size tells whether their annotations are of the turned."""
    sides = zip(
        index.orientation.tolist(), index.width.tolist(), index.height.tolist(), strict=True
    )
    names = [
        name
        for name, (orientation, width, height) in zip(index.image_id, sides, strict=True)
        if orientation in (2, 3, 4) or (orientation >= 5 and width == height)
    ]
    if not names:
        return []
    return [
        f"{plural(len(names), 'image')} turned by EXIF to the same size: what is annotated in them "
        f"is taken to be of the turned image; first {printable(names[0])}"
    ]


def _orientation(spec: DatasetSpec, name: str) -> int:
    try:
        data = read_bytes(spec.root / name, name)
        return facts_of(data, name, min_side=1, max_megapixels=spec.max_megapixels).orientation
    except ImageError:
        return 1
