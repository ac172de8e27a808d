"""Layouts: how a dataset's folder becomes a list of images with labels.

A layout is one function that takes the dataset's settings and gives its :class:`Candidate` rows,
sorted by the parts of their paths, lazily: only the folders that are needed are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vitfeat.data.folders import Folder, Tally, images_below
from vitfeat.data.images import image_extensions, printable
from vitfeat.data.listfile import read_list
from vitfeat.errors import DataError

if TYPE_CHECKING:
    from vitfeat.data.spec import DatasetSpec

IMAGENET50 = (
    *("n01601694", "n01669191", "n01755581", "n01770393", "n01855672", "n02018207", "n02058221"),
    *("n02096177", "n02097130", "n02099267", "n02100877", "n02104365", "n02106030", "n02114855"),
    *("n02125311", "n02133161", "n02484975", "n02489166", "n02747177", "n02906734", "n03124170"),
    *("n03272010", "n03337140", "n03483316", "n03498962", "n03710721", "n03717622", "n03733281"),
    *("n03759954", "n03775071", "n03814639", "n03837869", "n03838899", "n03854065", "n03954731"),
    *("n03983396", "n04026417", "n04200800", "n04209239", "n04311004", "n04380533", "n04428191"),
    *("n04443257", "n04509417", "n04525305", "n04554684", "n04606251", "n07583066", "n07711569"),
    "n07753592",
)
"""The 50 synsets of the layout ``imagenet50``, sorted."""


class Candidate(NamedTuple):
    """An image that a layout found; whether it can be used is not known yet."""

    image_id: str
    """POSIX path relative to the dataset's root."""
    label: int
    """-1 without labels."""
    class_name: str
    """Empty without labels."""


@dataclass(frozen=True)
class Listing:
    """What a layout found."""

    candidates: Iterator[Candidate]
    has_labels: bool


@dataclass(frozen=True)
class Layout:
    """A way to lay out a dataset, and the settings that it takes."""

    find: Callable[[DatasetSpec, Tally], Listing]
    split: Literal["never", "optional", "always"] = "never"
    reads_list: bool = False


def _start(spec: DatasetSpec) -> tuple[str, Folder]:
    """Read the folder that the layout starts from: the root, or the split within it."""
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


def _where(spec: DatasetSpec) -> Path:
    return spec.root / (spec.split or "")


def _no_images(spec: DatasetSpec, expected: str) -> DataError:
    return DataError(
        f"dataset {spec.name}: no images in {printable(str(_where(spec)))}; {expected}, "
        f"looked for files that end in {' '.join(sorted(image_extensions()))}; "
        f"set datasets.{spec.name}.root"
    )


def _members(
    spec: DatasetSpec, start: str, classes: list[str], tally: Tally
) -> Iterator[Candidate]:
    """Yield the images of class folders; the place of a class in ``classes`` is its label."""
    for label, class_name in enumerate(classes):
        folder = class_name if start == "." else f"{start}/{class_name}"
        empty = True
        for image_id in images_below(spec.root, folder, tally):
            empty = False
            yield Candidate(image_id, label, class_name)
        if empty:
            tally.empty_classes.append(class_name)
    if len(tally.empty_classes) == len(classes):
        raise _no_images(spec, f"its {len(classes)} subfolders are the classes")


def _folder(spec: DatasetSpec, tally: Tally) -> Listing:
    start, top = _start(spec)
    if not top.folders and top.images:
        raise DataError(
            f"dataset {spec.name}: {printable(str(_where(spec)))} holds images but no subfolders, "
            "and the layout folder takes one subfolder a class; for images without classes set "
            f"datasets.{spec.name}.layout: flat"
        )
    if not top.folders:
        raise _no_images(spec, "expected one subfolder a class")
    tally.beside_classes = len(top.images)
    tally.ignored_files += top.others
    return Listing(_members(spec, start, top.folders, tally), has_labels=True)


def _flat(spec: DatasetSpec, tally: Tally) -> Listing:
    start, _ = _start(spec)

    def candidates() -> Iterator[Candidate]:
        image_id = None
        for image_id in images_below(spec.root, start, tally):
            yield Candidate(image_id, -1, "")
        if image_id is None:
            raise _no_images(spec, "expected images in it or below")

    return Listing(candidates(), has_labels=False)


def _list(spec: DatasetSpec, tally: Tally) -> Listing:
    _start(spec)
    assert spec.list is not None, "DatasetSpec requires it"
    rows = read_list(spec.list, spec.root)
    return Listing(iter([Candidate(*row) for row in rows]), has_labels=rows[0][1] >= 0)


def _imagenet50(spec: DatasetSpec, tally: Tally) -> Listing:
    start, top = _start(spec)
    missing = sorted(set(IMAGENET50) - set(top.folders))
    if missing:
        raise DataError(
            f"dataset {spec.name}: {len(missing)} of the 50 class folders are missing in "
            f"{printable(str(_where(spec)))}: {', '.join(missing)}; set datasets.{spec.name}.root"
        )

    def candidates() -> Iterator[Candidate]:
        for candidate in _members(spec, start, list(IMAGENET50), tally):
            if tally.empty_classes:
                break
            yield candidate
        if tally.empty_classes:
            raise DataError(
                f"dataset {spec.name}: class folder {tally.empty_classes[0]} in "
                f"{printable(str(_where(spec)))} holds no images; imagenet50 needs all 50 classes"
            )

    return Listing(candidates(), has_labels=True)


LAYOUTS: dict[str, Layout] = {
    "folder": Layout(_folder, split="optional"),
    "flat": Layout(_flat),
    "list": Layout(_list, reads_list=True),
    "imagenet50": Layout(_imagenet50, split="optional"),
    # The embedded dataset is written as {train,test}/{class}/{index}.png.
    "digits": Layout(_folder, split="always"),
}
"""Every layout by the name that ``datasets.NAME.layout`` takes."""
