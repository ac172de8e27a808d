"""The layout of PartImageNet: images of ImageNet with the parts of the object that they show.

J. He et al.: PartImageNet: a large, high-quality dataset of parts. ECCV 2022. Every class (synset)
of ImageNet in it belongs to a superclass, which says what parts there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import PurePosixPath

from vitfeat.data.annotations import RegionRow
from vitfeat.data.folders import Tally
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.instances import Picture, Region, Split, read_regions, read_split
from vitfeat.data.listing import Candidate, Listing, parts_of
from vitfeat.data.regions import unite
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural

SPLITS = ("train", "val", "test")
"""The official splits; ``split: all`` takes the images of all three."""

_SYNSET = re.compile("(n[0-9]{8})_")


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
        for image_id in split.annotated(spec, tally):
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
            sorted(by_synset[s], key=parts_of) for s in sorted(by_synset) if superclass[s] == name
        ]
        images = _by_turns(members, spec.per_superclass)
        if spec.per_superclass is not None and len(images) < spec.per_superclass:
            tally.remarks.append(
                f"superclass {printable(name)} has {plural(len(images), 'image')}, fewer than "
                "per_superclass"
            )
        found += [Candidate(image_id, label, name) for image_id in images]
    found.sort(key=lambda candidate: parts_of(candidate.image_id))
    return Listing(iter(found), has_labels=True)


def regions(spec: DatasetSpec, index: Index, notes: list[str]) -> list[RegionRow]:
    """Read the parts and objects of the index's images.

    Of each image first its parts, with the dataset's number and name of the category; then the
    union of its parts, an object: the superclass and its number. An image with parts of several
    superclasses has an object of each.
    """
    splits = _splits(spec, masks=True)
    numbers = {name: number for number, name in enumerate(_superclasses(splits))}

    def rows(image_id: str, picture: Picture, regions: list[Region]) -> Iterator[RegionRow]:
        size = picture.height, picture.width
        masks: dict[str, list[str]] = {}
        for region in regions:
            masks.setdefault(region.category.supercategory, []).append(region.mask)
            yield region.row(image_id, "part", picture)
        for name in sorted(masks):
            whole = unite(masks[name], *size)
            yield RegionRow(image_id, "object", numbers[name], name, 0, *size, whole)

    return read_regions(spec, index, splits, notes, rows)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _splits(spec: DatasetSpec, *, masks: bool) -> list[Split]:
    """Read the JSON of each split, of whichever of two forms is there."""
    splits = []
    for name in SPLITS if spec.split == "all" else [str(spec.split)]:
        folder, json = name, f"{name}.json"
        other_folder, other_json = f"images/{name}", f"annotations/{name}/{name}.json"
        if not (spec.root / json).exists() and (spec.root / other_json).exists():
            folder, json = other_folder, other_json
        remedy = f"expected {name}.json beside {name}, or {other_json} beside {other_folder}"
        splits.append(read_split(spec, folder, json, (remedy, remedy), _name, masks=masks))
    return splits


def _synset(split: Split, name: str) -> str:
    match = _SYNSET.match(_name(name))
    if match is None:
        raise DataError(
            f"{split.instances.where}: the name of {printable(name)} does not begin with a synset, "
            "as in n02109961_1041.JPEG"
        )
    return match[1]


def _superclasses(splits: list[Split]) -> list[str]:
    """List the names of all superclasses, sorted."""
    names = {c.supercategory for split in splits for c in split.instances.categories.values()}
    if "" in names:
        raise DataError(
            f"{splits[0].instances.where}: a category has no supercategory, which is the superclass"
        )
    return sorted(names)


def _superclass_of_synsets(splits: list[Split]) -> dict[str, str]:
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
    turns = chain.from_iterable(zip_longest(*members))
    return [image_id for image_id in turns if image_id is not None][:n]
