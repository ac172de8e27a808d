"""COCO's JSON of annotated regions, in little memory: what the layouts that use it share.

The largest official one has 450 MB, and several gigabytes as Python's dictionaries and lists. Here
every image and annotation is packed as soon as it is read.
"""

from __future__ import annotations

import json
import posixpath
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.data.images import printable
from vitfeat.data.regions import area, compress, reaches_out
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
    """The contents of such a file.

    Attributes
    ----------
    where
        The file, for messages.
    images, categories
        By their ids.
    annotations
        In the file's order; of images and categories that are in it.
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


class RegionTally:
    """What was noticed of annotated regions, with the first image of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, image_id: str, annotation: Annotation, counts: str, picture: Picture) -> None:
        """Count a region."""
        found = {
            _CROWD: bool(annotation.crowd),
            _EMPTY: not area(counts, picture.height, picture.width),
            _BEYOND: reaches_out(annotation.segmentation, picture.height, picture.width),
        }
        for words in (words for words, is_so in found.items() if is_so):
            self._counts[words] += 1
            self._first.setdefault(words, image_id)

    def notes(self) -> Iterator[str]:
        """Yield a line for people about each."""
        for words in (_CROWD, _EMPTY, _BEYOND):
            if count := self._counts[words]:
                yield f"{plural(count, 'region')} {words}; first of {printable(self._first[words])}"


_CROWD = "of several objects that were not told apart (crowds), which are no objects by default"
_EMPTY = "without a pixel"
_BEYOND = "drawn more than a pixel beyond the image, cut at its border"


def require_inside(instances: Instances, folder: Path) -> None:
    """Check that no name of an image leads through a link out of the folder of images.

    The folder may be a link itself, and so may the images.
    """
    real = folder.resolve()
    deeper = {p.name.rpartition("/")[0]: p.name for p in instances.images.values()}
    for below, name in deeper.items():
        if not (folder / below).resolve().is_relative_to(real):
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
