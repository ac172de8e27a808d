"""Layouts: how a dataset's folder becomes a list of images with labels, and its annotations rows.

Images are found lazily, sorted by the parts of their paths: only folders that are needed are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vitfeat.data import (
    coco,
    davis,
    hdf5,
    parquet,
    partimagenet,
    revisited,
    spair,
    video,
    webdataset,
)
from vitfeat.data.folders import Doubles, Tally, images_below
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.listfile import read_list
from vitfeat.data.listing import Candidate, Listing, no_images, start_of, where
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError, DataError

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


def _doubles(spec: DatasetSpec) -> Doubles:
    """Return what becomes of images that differ only in their endings."""
    return "skip" if spec.on_error == "skip" else "refuse"


def _members(
    spec: DatasetSpec, start: str, classes: list[str], tally: Tally
) -> Iterator[Candidate]:
    """Yield the images of class folders; the place of a class in ``classes`` is its label."""
    for label, class_name in enumerate(classes):
        folder = class_name if start == "." else f"{start}/{class_name}"
        empty = True
        for image_id in images_below(spec.root, folder, tally, _doubles(spec)):
            empty = False
            yield Candidate(image_id, label, class_name)
        if empty:
            tally.empty_classes.append(class_name)
    if len(tally.empty_classes) == len(classes):
        raise no_images(spec, tally, f"its {len(classes)} subfolders are the classes")


def _folder(spec: DatasetSpec, tally: Tally) -> Listing:
    start, top = start_of(spec)
    if not top.folders and top.images:
        raise DataError(
            f"dataset {spec.name}: {printable(str(where(spec)))} holds images but no subfolders, "
            "and the layout folder takes one subfolder a class; for images without classes set "
            f"datasets.{spec.name}.layout: flat"
        )
    if not top.folders:
        tally.pass_over(top)
        raise no_images(spec, tally, "expected one subfolder a class")
    tally.beside_classes = len(top.images)
    tally.pass_over(top)
    return Listing(_members(spec, start, top.folders, tally), has_labels=True)


def _flat(spec: DatasetSpec, tally: Tally) -> Listing:
    start, _ = start_of(spec)

    def candidates() -> Iterator[Candidate]:
        image_id = None
        for image_id in images_below(spec.root, start, tally, _doubles(spec)):
            yield Candidate(image_id, -1, "")
        if image_id is None:
            raise no_images(spec, tally, "expected images in it or below")

    return Listing(candidates(), has_labels=False)


def _list(spec: DatasetSpec, tally: Tally) -> Listing:
    start_of(spec)
    assert spec.list is not None, "DatasetSpec requires it"
    rows = read_list(spec.list, spec.root)
    return Listing(iter([Candidate(*row) for row in rows]), has_labels=rows[0][1] >= 0)


def _imagenet50(spec: DatasetSpec, tally: Tally) -> Listing:
    start, top = start_of(spec)
    missing = sorted(set(IMAGENET50) - set(top.folders))
    if missing:
        raise DataError(
            f"dataset {spec.name}: {len(missing)} of the 50 class folders are missing in "
            f"{printable(str(where(spec)))}: {', '.join(missing)}; set datasets.{spec.name}.root"
        )

    def candidates() -> Iterator[Candidate]:
        for candidate in _members(spec, start, list(IMAGENET50), tally):
            if tally.empty_classes:
                break
            yield candidate
        if tally.empty_classes:
            raise DataError(
                f"dataset {spec.name}: class folder {tally.empty_classes[0]} in "
                f"{printable(str(where(spec)))} holds no images; imagenet50 needs all 50 classes"
            )

    return Listing(candidates(), has_labels=True)


_SYNSET = re.compile("n[0-9]{8}")


def _imagenet(spec: DatasetSpec, tally: Tally) -> Listing:
    start, top = start_of(spec)
    classes = [name for name in top.folders if _SYNSET.fullmatch(name)]
    if not classes:
        hint = (
            "; the official validation images come in one folder and must be sorted into synsets"
            if top.images
            else ""
        )
        raise DataError(
            f"dataset {spec.name}: no class folders such as n01440764 in "
            f"{printable(str(where(spec)))}{hint}; set datasets.{spec.name}.root"
        )
    return Listing(_members(spec, start, classes, tally), has_labels=True)


_FIND: dict[str, Callable[[DatasetSpec, Tally], Listing]] = {
    "folder": _folder,
    "flat": _flat,
    "list": _list,
    "imagenet": _imagenet,
    "imagenet50": _imagenet50,
    "digits": _folder,
    "coco": coco.find,
    "partimagenet": partimagenet.find,
    "revisited": revisited.find,
    "davis": davis.find,
    "spair": spair.find,
    "webdataset": webdataset.find,
    "parquet": parquet.find,
    "hdf5": hdf5.find,
    "video": video.find,
}

_ANNOTATED: dict[str, Callable[[DatasetSpec, Index, list[str]], Sequence[Any]]] = {
    "coco": coco.regions,
    "partimagenet": partimagenet.regions,
    "revisited": revisited.relevance,
    "davis": davis.frames,
    "spair": spair.points,
}


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List a dataset's images; the tally grows with what is passed over."""
    return _FIND[spec.layout](spec, tally)


def read_annotated(spec: DatasetSpec, index: Index, notes: list[str]) -> tuple[str, Sequence[Any]]:
    """Read what a layout's own files annotate in the images of an index: the kind, and its rows.

    Adds lines for people about what was noticed to the notes.
    """
    if spec.annotations is None:
        raise ConfigError(
            f"dataset {spec.name}: the layout {spec.layout} annotates nothing beside its images; "
            f"those that do are {', '.join(_ANNOTATED)}"
        )
    return spec.annotations, _ANNOTATED[spec.layout](spec, index, notes)
