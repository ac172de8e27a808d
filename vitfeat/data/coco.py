"""The layout of COCO 2017: photographs with objects, their masks and crowds.

T.-Y. Lin et al.: Microsoft COCO: common objects in context. ECCV 2014.
"""

from __future__ import annotations

from collections.abc import Iterator

from vitfeat.data.annotations import RegionRow
from vitfeat.data.folders import Tally, images_below
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.instances import (
    Instances,
    RegionTally,
    read_instances,
    require_inside,
)
from vitfeat.data.listing import Candidate, Listing, require_file, require_folder, require_size
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of a split that are there and have at least one annotation.

    They lie in ``images/{split}``; ``annotations/instances_{split}.json`` names them and what they
    show. Images that it names and that are not there are left out with a line in the log, so that a
    piece of the dataset will do; as are images without annotations.
    """
    folder = _folder(spec)
    instances = _instances(spec, masks=False)
    annotated = {annotation.image for annotation in instances.annotations}
    listed = {f"{folder}/{p.name}": id_ in annotated for id_, p in instances.images.items()}
    present = set(images_below(spec.root, folder, tally, "keep"))
    absent = sorted(listed.keys() - present)
    without = sum(not listed[image_id] for image_id in listed.keys() & present)
    found = [image_id for image_id in present if listed.get(image_id)]
    if not annotated:
        raise DataError(
            f"dataset {spec.name}: {_json(spec)} has no annotations; unpack "
            f"annotations_trainval2017.zip anew, or set datasets.{spec.name}.split"
        )
    if not found:
        raise DataError(
            f"dataset {spec.name}: none of {plural(len(listed), 'image')} that "
            f"{_json(spec)} names is in {folder} and annotated; unpack {spec.split}.zip there"
        )
    if absent:
        tally.remarks.append(
            f"{plural(len(absent), 'image')} of {len(listed):,} that {_json(spec)} names left out, "
            f"not in {folder}, first {printable(absent[0])}"
        )
    if without:
        tally.remarks.append(f"{plural(without, 'image')} without annotations left out")
    if unnamed := len(present - listed.keys()):
        tally.remarks.append(f"{plural(unnamed, 'image')} ignored, not in {_json(spec)}")
    found.sort(key=lambda image_id: image_id.split("/"))
    return Listing((Candidate(image_id, -1, "") for image_id in found), has_labels=False)


def regions(spec: DatasetSpec, index: Index, notes: list[str]) -> list[RegionRow]:
    """Read the objects of the index's images: in its order, of each in the order of their ids.

    Adds to the notes how many are crowds, have no pixel, or reach beyond their image.

    Returns
    -------
    list of RegionRow
        Level ``object``, with COCO's number and name of the category. Crowds are among them.
    """
    folder = _folder(spec)
    instances = _instances(spec, masks=True)
    ids = {f"{folder}/{picture.name}": id_ for id_, picture in instances.images.items()}
    by_image = instances.by_image()
    tally = RegionTally()

    def rows() -> Iterator[RegionRow]:
        for place, image_id in enumerate(index.image_id):
            if image_id not in ids:
                raise DataError(
                    f"dataset {spec.name}: {printable(image_id)} of the index is not in "
                    f"{_json(spec)}; make the index anew"
                )
            picture = instances.images[ids[image_id]]
            require_size(spec, index, place, (picture.width, picture.height), instances.where)
            for annotation in by_image.get(ids[image_id], []):
                counts = instances.counts(annotation)
                tally.add(image_id, annotation, counts, picture)
                yield RegionRow(
                    image_id,
                    "object",
                    annotation.category,
                    instances.categories[annotation.category].name,
                    annotation.crowd,
                    picture.height,
                    picture.width,
                    counts,
                )

    found = list(rows())
    notes += tally.notes()
    return found


def _folder(spec: DatasetSpec) -> str:
    return f"images/{spec.split}"


def _json(spec: DatasetSpec) -> str:
    return f"annotations/instances_{spec.split}.json"


def _instances(spec: DatasetSpec, *, masks: bool) -> Instances:
    require_folder(spec, _folder(spec), f"unpack {spec.split}.zip into images")
    require_file(spec, _json(spec), "unpack annotations_trainval2017.zip there")
    instances = read_instances(spec.root / _json(spec), spec.name, masks=masks)
    require_inside(instances, spec.root / _folder(spec))
    return instances
