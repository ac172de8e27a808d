"""The layout of COCO 2017: photographs with objects, their masks and crowds.

T.-Y. Lin et al.: Microsoft COCO: common objects in context. ECCV 2014. Images lie in
``images/{split}``; ``annotations/instances_{split}.json`` names them and what they show.
"""

from __future__ import annotations

from vitfeat.data.annotations import RegionRow
from vitfeat.data.folders import Tally
from vitfeat.data.index import Index
from vitfeat.data.instances import Split, read_regions, read_split, require_inside
from vitfeat.data.listing import Candidate, Listing
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of a split that are there and have at least one annotation.

    Images that the JSON names and that are not there are left out with a line in the log, so that a
    piece of the dataset will do; as are images without annotations.
    """
    split = _split(spec, masks=False)
    if not split.instances.annotations:
        raise DataError(
            f"dataset {spec.name}: {split.json} has no annotations; unpack "
            f"annotations_trainval2017.zip anew, or set datasets.{spec.name}.split"
        )
    images = split.annotated(spec, tally)
    if not images:
        raise DataError(
            f"dataset {spec.name}: none of {plural(len(split.ids), 'image')} that {split.json} "
            f"names is in {split.folder} and annotated; unpack {spec.split}.zip there"
        )
    return Listing((Candidate(image_id, -1, "") for image_id in images), has_labels=False)


def regions(spec: DatasetSpec, index: Index, notes: list[str]) -> list[RegionRow]:
    """Read the objects of the index's images, with COCO's categories; crowds are among them."""
    return read_regions(
        spec,
        index,
        [_split(spec, masks=True)],
        notes,
        lambda image_id, picture, regions: (r.row(image_id, "object", picture) for r in regions),
    )


def _split(spec: DatasetSpec, *, masks: bool) -> Split:
    folder, json = f"images/{spec.split}", f"annotations/instances_{spec.split}.json"
    unpack = f"unpack {spec.split}.zip into images", "unpack annotations_trainval2017.zip there"
    split = read_split(spec, folder, json, unpack, masks=masks)
    require_inside(split.instances, spec.root / folder)
    return split
