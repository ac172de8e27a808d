"""The layout of PartImageNet: images of ImageNet with the parts of the object that they show.

J. He et al.: PartImageNet: a large, high-quality dataset of parts. ECCV 2022. Every class (synset)
of ImageNet in it belongs to a superclass, which says what parts there are.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from vitfeat.data.annotations import RegionRow
from vitfeat.data.folders import Tally, images_below
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.instances import (
    Annotation,
    Instances,
    Picture,
    RegionTally,
    read_instances,
)
from vitfeat.data.listing import Candidate, Listing, require_file, require_folder, require_size
from vitfeat.data.regions import unite
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural

SPLITS = ("train", "val", "test")
"""The official splits; ``split: all`` takes the images of all three."""

_SYNSET = re.compile("(n[0-9]{8})_")


@dataclass(frozen=True)
class _Split:
    """A split, in one of the two forms that it was released in."""

    folder: str
    json: str
    instances: Instances

    ids: dict[str, int]
    """The ids of the images by the names of their files, without folders."""
    by_image: dict[int, list[Annotation]]

    def picture(self, image_id: str) -> Picture:
        """Return what the JSON says of an image."""
        return self.instances.images[self.ids[_name(image_id)]]


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of a split that are there and have at least one annotated part.

    The label is the number of the superclass among the sorted names of all, ``class_name`` its
    name. The superclass of a synset is the one that most of its annotations are of (of equals the
    first by name).

    With ``per_superclass: N`` each superclass gives N images: one of each of its synsets in sorted
    order, by turns, in the order of their names; when a synset runs out, the others go on. Unusable
    images that ``on_error: skip`` leaves out later are not replaced.
    """
    splits = _splits(spec, masks=False)
    superclass, names = _superclass_of_synsets(splits), _superclasses(splits)
    by_synset: dict[str, list[str]] = {}
    for split in splits:
        for image_id in _annotated(spec, split, tally):
            by_synset.setdefault(_synset(split, image_id), []).append(image_id)
    if not by_synset:
        folders = " or ".join(split.folder for split in splits)
        raise DataError(
            f"dataset {spec.name}: no image that {splits[0].json} names is in {folders} and "
            f"annotated; unpack the images there, or set datasets.{spec.name}.root"
        )
    found = []
    for label, name in enumerate(names):
        members = [
            sorted(by_synset[s], key=_parts) for s in sorted(by_synset) if superclass[s] == name
        ]
        images = _by_turns(members, spec.per_superclass)
        if spec.per_superclass is not None and len(images) < spec.per_superclass:
            tally.remarks.append(
                f"superclass {printable(name)} has {plural(len(images), 'image')}, fewer than "
                "per_superclass"
            )
        found += [Candidate(image_id, label, name) for image_id in images]
    found.sort(key=lambda candidate: _parts(candidate.image_id))
    return Listing(iter(found), has_labels=True)


def regions(spec: DatasetSpec, index: Index, notes: list[str]) -> list[RegionRow]:
    """Read the parts and objects of the index's images, in its order.

    Adds to the notes how many parts are crowds, have no pixel, or reach beyond their image.

    Returns
    -------
    list of RegionRow
        Of each image first its parts, level ``part``, in the order of their ids, with the dataset's
        number and name of the category; then, level ``object``, the union of its parts: the
        superclass and its number. An image with parts of several superclasses has an object of
        each.
    """
    splits = _splits(spec, masks=True)
    numbers = {name: number for number, name in enumerate(_superclasses(splits))}
    rows: list[RegionRow] = []
    tally = RegionTally()
    for place, image_id in enumerate(index.image_id):
        split = _split_of(spec, splits, image_id)
        picture = split.picture(image_id)
        size = (picture.width, picture.height)
        require_size(spec, index, place, size, split.instances.where)
        rows += _rows(split, image_id, numbers, tally)
    notes += tally.notes()
    return rows


def _split_of(spec: DatasetSpec, splits: list[_Split], image_id: str) -> _Split:
    for split in splits:
        if image_id.startswith(f"{split.folder}/") and _name(image_id) in split.ids:
            return split
    raise DataError(
        f"dataset {spec.name}: {printable(image_id)} of the index is not in "
        f"{' or '.join(split.json for split in splits)}; make the index anew"
    )


def _rows(
    split: _Split, image_id: str, numbers: dict[str, int], tally: RegionTally
) -> Iterator[RegionRow]:
    """Yield the parts of an image, then its objects."""
    instances, picture = split.instances, split.picture(image_id)
    size = picture.height, picture.width
    parts: dict[str, list[str]] = {}
    for annotation in split.by_image.get(split.ids[_name(image_id)], []):
        category = instances.categories[annotation.category]
        mask = instances.counts(annotation)
        tally.add(image_id, annotation, mask, picture)
        parts.setdefault(category.supercategory, []).append(mask)
        yield RegionRow(
            image_id,
            "part",
            annotation.category,
            category.name,
            annotation.crowd,
            *size,
            mask,
        )
    for name in sorted(parts):
        yield RegionRow(
            image_id, "object", numbers[name], name, 0, *size, unite(parts[name], *size)
        )


def _name(image_id: str) -> str:
    return PurePosixPath(image_id).name


def _parts(image_id: str) -> list[str]:
    return image_id.split("/")


def _splits(spec: DatasetSpec, *, masks: bool) -> list[_Split]:
    assert spec.split is not None, "the layout requires it"
    return [
        _split(spec, name, masks=masks)
        for name in (SPLITS if spec.split == "all" else [spec.split])
    ]


def _split(spec: DatasetSpec, name: str, *, masks: bool) -> _Split:
    """Read a split's JSON, of whichever form is there."""
    folder, json = name, f"{name}.json"
    other_folder, other_json = f"images/{name}", f"annotations/{name}/{name}.json"
    if not (spec.root / json).exists() and (spec.root / other_json).exists():
        folder, json = other_folder, other_json
    remedy = f"expected {name}.json beside {name}, or {other_json} beside {other_folder}"
    require_folder(spec, folder, remedy)
    require_file(spec, json, remedy)
    instances = read_instances(spec.root / json, spec.name, masks=masks)
    ids: dict[str, int] = {}
    for id_, picture in instances.images.items():
        if ids.setdefault(_name(picture.name), id_) != id_:
            raise DataError(
                f"{instances.where}: two images are called {printable(_name(picture.name))}"
            )
    return _Split(folder, json, instances, ids, instances.by_image())


def _annotated(spec: DatasetSpec, split: _Split, tally: Tally) -> list[str]:
    """List the images of a split that are there and annotated, sorted."""
    ids = split.ids
    present: dict[str, str] = {}
    unnamed = 0
    for image_id in images_below(spec.root, split.folder, tally, "keep"):
        name = _name(image_id)
        if name not in ids:
            unnamed += 1
        elif name in present:
            raise DataError(
                f"dataset {spec.name}: {printable(present[name])} and {printable(image_id)} have "
                "one name; remove one of them"
            )
        else:
            present[name] = image_id
    absent = sorted(ids.keys() - present.keys())
    if absent:
        tally.remarks.append(
            f"{plural(len(absent), 'image')} of {len(ids):,} that {split.json} names left out, not "
            f"in {split.folder}, first {printable(absent[0])}"
        )
    found = [image_id for name, image_id in present.items() if ids[name] in split.by_image]
    if without := len(present) - len(found):
        tally.remarks.append(
            f"{plural(without, 'image')} without annotations in {split.json} left out"
        )
    if unnamed:
        tally.remarks.append(f"{plural(unnamed, 'image')} ignored, not in {split.json}")
    return found


def _synset(split: _Split, name: str) -> str:
    match = _SYNSET.match(_name(name))
    if match is None:
        raise DataError(
            f"{split.instances.where}: the name of {printable(name)} does not begin with a synset, "
            "as in n02109961_1041.JPEG"
        )
    return match[1]


def _superclasses(splits: list[_Split]) -> list[str]:
    """List the names of all superclasses, sorted."""
    names = {c.supercategory for split in splits for c in split.instances.categories.values()}
    if "" in names:
        raise DataError(
            f"{splits[0].instances.where}: a category has no supercategory, which is the superclass"
        )
    return sorted(names)


def _superclass_of_synsets(splits: list[_Split]) -> dict[str, str]:
    """Find the superclass that most annotations of each synset are of."""
    counts: dict[str, Counter[str]] = {}
    for split in splits:
        images, categories = split.instances.images, split.instances.categories
        for annotation in split.instances.annotations:
            synset = _synset(split, images[annotation.image].name)
            name = categories[annotation.category].supercategory
            counts.setdefault(synset, Counter())[name] += 1
    return {
        synset: min(found, key=lambda name: (-found[name], name))
        for synset, found in counts.items()
    }


def _by_turns(members: list[list[str]], n: int | None) -> list[str]:
    """Take n images, or all there are: one of each list by turns."""
    queues = [deque(images) for images in members]
    taken: list[str] = []
    while queues:
        for queue in queues:
            if len(taken) == n:
                return taken
            taken.append(queue.popleft())
        queues = [queue for queue in queues if queue]
    return taken
