"""COCO's JSON of annotated regions, in little memory: what the layouts that use it share.

The largest official one has 450 MB, and several gigabytes as Python's dictionaries and lists. Here
every image and annotation is packed as soon as it is read.
"""

from __future__ import annotations

import json
import posixpath
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.data.annotations import RegionRow
from vitfeat.data.folders import Tally, images_below
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.listing import (
    Noticed,
    parts_of,
    require_file,
    require_folder,
    require_size,
    stays_in,
)
from vitfeat.data.regions import area, compress, reaches_out
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural


class Picture(NamedTuple):
    """An image that the JSON lists."""

    name: str
    """POSIX path relative to the folder of images."""
    height: int
    width: int


class Category(NamedTuple):
    """What regions are of."""

    name: str
    supercategory: str


class Annotation(NamedTuple):
    """A region of an image."""

    id: int
    image: int
    category: int
    crowd: int
    segmentation: Any


@dataclass(frozen=True)
class Instances:
    """The contents of such a file; ``where`` is the file, for messages.

    Annotations are in the file's order, of images and categories that are in it.
    """

    where: str
    images: dict[int, Picture]
    categories: dict[int, Category]
    annotations: list[Annotation]

    def by_image(self) -> dict[int, list[Annotation]]:
        """Group the annotations by image, of each in the order of their ids."""
        groups: dict[int, list[Annotation]] = {}
        for annotation in sorted(self.annotations, key=lambda annotation: annotation.id):
            group = groups.setdefault(annotation.image, [])
            if group and group[-1].id == annotation.id:
                raise DataError(
                    f"{self.where}: annotation {annotation.id} of "
                    f"{printable(self.images[annotation.image].name)} stands there twice; remove "
                    "one of them"
                )
            group.append(annotation)
        return groups

    def counts(self, annotation: Annotation) -> str:
        """Give an annotation's mask in the compressed form."""
        picture = self.images[annotation.image]
        try:
            return compress(annotation.segmentation, picture.height, picture.width)
        except DataError as error:
            raise DataError(f"{self.where}, annotation {annotation.id}: {error}") from None


class Region(NamedTuple):
    """An annotation of an image with its category, and its mask in the compressed form."""

    annotation: Annotation
    category: Category
    mask: str

    def row(self, image_id: str, level: str, picture: Picture) -> RegionRow:
        """Return it as a row of the table of regions."""
        _, _, category, crowd, _ = self.annotation
        size = picture.height, picture.width
        return RegionRow(image_id, level, category, self.category.name, crowd, *size, self.mask)


_NOTED = {
    "crowd": "of several objects that were not told apart (crowds), which are no objects by "
    "default",
    "empty": "without a pixel",
    "beyond": "drawn more than a pixel beyond the image, cut at its border",
}


@dataclass(frozen=True)
class Split:
    """A split of a dataset: a folder of images, and the file that says what they show.

    ``ids`` are those of the images by what ``key`` makes of their paths in the folder.
    """

    folder: str
    json: str
    instances: Instances
    ids: dict[str, int]
    key: Callable[[str], str]

    def id_of(self, image_id: str) -> int | None:
        """Return the number of an image; None if it is not of this split."""
        inner = image_id.removeprefix(f"{self.folder}/")
        return None if inner == image_id else self.ids.get(self.key(inner))

    def annotated(self, spec: DatasetSpec, tally: Tally) -> list[str]:
        """List the images that are there and annotated, sorted; the tally gets what is not."""
        shown = {annotation.image for annotation in self.instances.annotations}
        there: dict[int, str] = {}
        unnamed = 0
        for image_id in images_below(spec.root, self.folder, tally, "keep"):
            number = self.id_of(image_id)
            if number is None:
                unnamed += 1
            elif there.setdefault(number, image_id) != image_id:
                raise DataError(
                    f"dataset {spec.name}: {printable(there[number])} and {printable(image_id)} "
                    "have one name; remove one of them"
                )
        if absent := sorted(name for name, number in self.ids.items() if number not in there):
            tally.remarks.append(
                f"{plural(len(absent), 'image')} of {len(self.ids):,} that {self.json} names left "
                f"out, not in {self.folder}, first {printable(absent[0])}"
            )
        images = [image_id for number, image_id in there.items() if number in shown]
        if without := len(there) - len(images):
            tally.remarks.append(f"{plural(without, 'image')} without annotations left out")
        if unnamed:
            tally.remarks.append(f"{plural(unnamed, 'image')} ignored, not in {self.json}")
        return sorted(images, key=parts_of)


def read_split(
    spec: DatasetSpec,
    folder: str,
    json: str,
    remedies: tuple[str, str],
    key: Callable[[str], str] = str,
    *,
    masks: bool,
) -> Split:
    """Read a split; the remedies say what brings its folder and its file there."""
    require_folder(spec, folder, remedies[0])
    require_file(spec, json, remedies[1])
    instances = read_instances(spec.root / json, spec.name, masks=masks)
    ids: dict[str, int] = {}
    for id_, picture in instances.images.items():
        name = key(picture.name)
        if ids.setdefault(name, id_) != id_:
            raise DataError(f"{instances.where}: two images are called {printable(name)}")
    return Split(folder, json, instances, ids, key)


def read_regions(
    spec: DatasetSpec,
    index: Index,
    splits: Sequence[Split],
    notes: list[str],
    rows_of: Callable[[str, Picture, list[Region]], Iterable[RegionRow]],
) -> list[RegionRow]:
    """Read the regions of the index's images: in its order, of each in the order of their ids.

    `rows_of` makes rows of an image and its regions. Adds to the notes how many are crowds, have
    no pixel, or reach beyond their image.
    """
    noticed = Noticed()
    by_image = [split.instances.by_image() for split in splits]
    rows: list[RegionRow] = []
    for place, image_id in enumerate(index.image_id):
        which, number = _find(spec, splits, image_id)
        instances = splits[which].instances
        picture = instances.images[number]
        require_size(spec, index, place, (picture.width, picture.height), instances.where)
        regions = []
        for annotation in by_image[which].get(number, []):
            mask = instances.counts(annotation)
            size = picture.height, picture.width
            found = {
                "crowd": bool(annotation.crowd),
                "empty": not area(mask, *size),
                "beyond": reaches_out(annotation.segmentation, *size),
            }
            for what in (what for what, is_so in found.items() if is_so):
                noticed.add(what, image_id)
            category = instances.categories[annotation.category]
            regions.append(Region(annotation, category, mask))
        rows += rows_of(image_id, picture, regions)
    notes += noticed.notes("region", _NOTED, "first of")
    return rows


def _find(spec: DatasetSpec, splits: Sequence[Split], image_id: str) -> tuple[int, int]:
    """Return the place of an image's split, and its number there."""
    for which, split in enumerate(splits):
        if (number := split.id_of(image_id)) is not None:
            return which, number
    raise DataError(
        f"dataset {spec.name}: {printable(image_id)} of the index is not in "
        f"{' or '.join(split.json for split in splits)}; make the index anew"
    )


def require_inside(instances: Instances, folder: Path) -> None:
    """Check that no name of an image leads through a link out of the folder of images."""
    deeper = {p.name.rpartition("/")[0]: p.name for p in instances.images.values()}
    for below, name in deeper.items():
        if not stays_in(folder, below):
            raise DataError(
                f"{instances.where}: {printable(name)} leads through a link out of "
                f"{printable(str(folder))}; put the images there themselves"
            )


def read_instances(path: Path, dataset: str, *, masks: bool) -> Instances:
    """Read a file of annotations; without masks much less memory is needed."""
    where = f"dataset {dataset}: {printable(str(path))}"
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_hook=_packer(masks))
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error!s:.80}); unpack or download it anew") from None
    for key in _USED:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{where} has no list of {key}; it is no COCO file of instances")
    images = dict(_images(where, content["images"]))
    categories = dict(_categories(where, content["categories"]))
    annotations = list(_annotations(where, content["annotations"], images, categories))
    return Instances(where, images, categories, annotations)


class _Raw(NamedTuple):
    """A mapping of the JSON, its values unchecked: without the keys that are not used."""

    kind: str
    values: tuple[Any, ...]


_USED = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name", "supercategory"),
    "annotations": ("id", "image_id", "category_id", "iscrowd", "segmentation"),
}


def _packer(masks: bool) -> Callable[[dict[str, Any]], Any]:
    """Make the hook that packs each mapping when it is read."""

    def pack(mapping: dict[str, Any]) -> Any:
        if "image_id" in mapping:
            mapping["segmentation"] = _packed(mapping.get("segmentation")) if masks else None
            kind = "annotations"
        elif "file_name" in mapping:
            kind = "images"
        elif "name" in mapping and "id" in mapping:
            # Licences look the same.
            kind = "categories"
        else:
            return mapping
        return _Raw(kind, tuple(mapping.get(key) for key in _USED[kind]))

    return pack


def _packed(segmentation: Any) -> Any:
    """Pack polygons, and run lengths that are a list; anything else is left as it is."""
    try:
        if isinstance(segmentation, dict):
            counts = segmentation.get("counts")
            if isinstance(counts, list):
                return {**segmentation, "counts": array("q", counts)}
            return segmentation
        return [array("d", polygon) for polygon in segmentation]
    except (TypeError, OverflowError):
        return segmentation


def _entries(where: str, kind: str, entries: list[Any]) -> Iterator[tuple[Any, ...]]:
    for place, entry in enumerate(entries):
        if not isinstance(entry, _Raw) or entry.kind != kind or type(entry.values[0]) is not int:
            raise DataError(
                f"{where}: entry {place} of {kind} lacks some of {', '.join(_USED[kind])}, or its "
                "id is no whole number"
            )
        yield entry.values


def _images(where: str, entries: list[Any]) -> Iterator[tuple[int, Picture]]:
    ids: set[int] = set()
    names: set[str] = set()
    for id_, name, height, width in _entries(where, "images", entries):
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise DataError(
                f"{where}: image {id_} has no height and width of whole numbers from 1: "
                f"{height!r:.20}, {width!r:.20}"
            )
        path = _path(where, name)
        if id_ in ids or path in names:
            raise DataError(
                f"{where}: image {id_} ({printable(path)}) stands there twice; remove one of them"
            )
        ids.add(id_)
        names.add(path)
        yield id_, Picture(path, height, width)


def _path(where: str, name: Any) -> str:
    """Normalise the name of an image's file; names made on Windows have backslashes."""
    path = name.replace("\\", "/") if isinstance(name, str) else ""
    normal = posixpath.normpath(path)
    leaves = normal in (".", "..") or normal.startswith(("/", "../")) or path[1:2] == ":"
    if leaves or not path or "\0" in path:
        raise DataError(
            f"{where}: {printable(repr(name))[:80]} is not the name of an image within its folder; "
            "names must not lead out of it"
        )
    return normal


def _categories(where: str, entries: list[Any]) -> Iterator[tuple[int, Category]]:
    ids: set[int] = set()
    for id_, name, supercategory in _entries(where, "categories", entries):
        if not isinstance(name, str) or not isinstance(supercategory, str | None):
            raise DataError(f"{where}: category {id_} has no name that is a text")
        if id_ in ids:
            raise DataError(
                f"{where}: category {id_} ({printable(name)}) stands there twice; remove one of "
                "them"
            )
        ids.add(id_)
        yield id_, Category(name, supercategory or "")


def _annotations(
    where: str, entries: list[Any], images: dict[int, Picture], categories: dict[int, Category]
) -> Iterator[Annotation]:
    for values in _entries(where, "annotations", entries):
        id_, image, category, crowd, segmentation = values
        # Where there are no crowds, the flag may be left out.
        crowd = 0 if crowd is None else crowd
        for what, number, allowed in (
            ("image_id", image, images),
            ("category_id", category, categories),
            ("iscrowd", crowd, (0, 1)),
        ):
            if type(number) is not int or number not in allowed:
                raise DataError(
                    f"{where}, annotation {id_}: its {what} is {number!r:.40}, which is not known"
                )
        yield Annotation(id_, image, category, crowd, segmentation)
