"""The layout of DAVIS-2017: sequences of frames, with a mask of objects for some or all of them.

::

    root/
      ImageSets/2017/{split}.txt              names of sequences, a line each
      JPEGImages/480p/{sequence}/00000.jpg    frames, in the order of their names
      Annotations/480p/{sequence}/00000.png   masks, by the names of the frames
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import PurePosixPath

from vitfeat.data.annotations import FrameRow
from vitfeat.data.folders import Tally, images_below
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.listfile import names_in
from vitfeat.data.listing import (
    Candidate,
    Listing,
    Noticed,
    is_file_name,
    require_folder,
    require_size,
    stays_in,
)
from vitfeat.data.masks import VOID, Mask, mask_size, objects_in, read_mask
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.text import plural

_DIGITS = re.compile("([0-9]+)")

_FRAMES = "JPEGImages/480p"
_MASKS = "Annotations/480p"
_SETS = "ImageSets/2017"


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the frames of the split's sequences.

    The label of a frame is the number of its sequence among those of the split, sorted by name;
    the class name is the sequence. ``per_class`` takes the first so many frames of each sequence.
    ``limit`` takes the first sequences that have no more frames than that together, whole ones: no
    video is cut by it.
    """
    return Listing(_candidates(spec, _sequences(spec), tally), has_labels=True)


def _candidates(spec: DatasetSpec, sequences: list[str], tally: Tally) -> Iterator[Candidate]:
    taken = 0
    for label, sequence in enumerate(sequences):
        frames = _frames(spec, sequence, tally)
        taken += len(frames)
        if spec.limit is not None and taken > spec.limit:
            if label == 0:
                raise DataError(
                    f"dataset {spec.name}: sequence {printable(sequence)} has "
                    f"{plural(len(frames), 'frame')}, more than limit: {spec.limit}, which takes "
                    f"whole sequences; raise it, or cut sequences by datasets.{spec.name}.per_class"
                )
            tally.remarks.append(
                f"the first {label} of {plural(len(sequences), 'sequence')} used, for limit: "
                f"{spec.limit}"
            )
            return
        for image_id in frames:
            yield Candidate(image_id, label, sequence)


def frames(spec: DatasetSpec, index: Index, notes: list[str]) -> list[FrameRow]:
    """List the frames of the index with their masks.

    Frames are counted from 0 in the order of their names. Sequences that the index does not have,
    for ``limit``, are left out, and frames behind those that it has, for ``per_class``. The mask is
    empty for frames without a file of their name in the folder of masks, as in test-dev. The notes
    say of how many sequences that is so, and what is odd in first masks.
    """
    indexed = {image_id: row for row, image_id in enumerate(index.image_id)}
    skipped = dict(index.skipped)
    used = {PurePosixPath(name).parts[2] for name in (*indexed, *skipped)}
    rows = []
    noticed = Noticed()
    for sequence in _sequences(spec):
        if sequence not in used:
            continue
        masks, is_whole = _masks(spec, sequence), True
        for number, name in enumerate(_frames(spec, sequence, Tally())):
            if name not in indexed:
                reason = skipped.get(name, "the index does not have it, so make it anew")
                raise DataError(
                    f"dataset {spec.name}: frame {printable(name)} was left out: {reason}; a video "
                    "needs all of its frames: repair the file, or take the sequence out of "
                    f"{_SETS}/{spec.split}.txt"
                )
            mask = _mask_of(name)
            if number == 0 and mask not in masks:
                raise DataError(
                    f"dataset {spec.name}: no mask {printable(str(spec.root / mask))}; a sequence "
                    "starts from the mask of its first frame"
                )
            if mask in masks:
                # Decoding all of them is left to the job that needs them.
                row, where = indexed[name], f"dataset {spec.name}: {mask}"
                size = mask_size(spec.root / mask, where)
                require_size(spec, index, row, size, where, _RESOLUTION)
                if number == 0:
                    first = read_mask(spec.root / mask, size[::-1], where)
                    for what, name_of in _odd(spec, sequence, first, where):
                        noticed.add(what, name_of)
            else:
                is_whole = False
            rows.append(FrameRow(sequence, number, name, mask if mask in masks else ""))
        if not is_whole:
            noticed.add("partly", sequence)
    notes += noticed.notes("sequence", _NOTED)
    return rows


# So many beside void are shades: sequences of DAVIS-2017 have ten objects at most.
_MOST_OBJECTS = 32

_RESOLUTION = "take mask and frame from the same resolution of the dataset"


_NOTED = {
    "empty": "whose first mask holds no object, left out",
    "void": "whose first mask has pixels of 255 (void), which count as background",
    "gaps": "whose first mask passes over numbers of objects: what has no pixel in it is no "
    "object (analyses.video.objects: official scores it, as the official evaluation does)",
    "partly": "without masks of all frames, followed but not scored",
}


def _odd(spec: DatasetSpec, sequence: str, mask: Mask, where: str) -> Iterator[tuple[str, str]]:
    """Yield what is odd in the first mask of a sequence, and how people are told which it is."""
    objects = objects_in(mask)
    has_void = bool((mask == VOID).any())
    if has_void and len(objects) > _MOST_OBJECTS:
        raise DataError(
            f"{where}: it holds {len(objects)} numbers beside 0 and 255: shades of grey rather "
            "than numbers of objects (255 is void); write 0 for background and 1 for the "
            "object in all masks, without smoothed edges"
        )
    if has_void and not objects:
        raise DataError(
            f"{where}: its pixels are 0 and 255 alone, and 255 is void in DAVIS-2017, so there "
            "is no object to follow; if 255 is meant as the object (as in DAVIS-2016), write 1 "
            f"in its place in all masks, else take the sequence out of {_SETS}/{spec.split}.txt"
        )
    if not objects:
        yield "empty", sequence
    elif len(objects) < objects[-1]:
        yield "gaps", f"{sequence} with the objects {', '.join(map(str, objects))}"
    if has_void:
        yield "void", sequence


def _mask_of(image_id: str) -> str:
    """Return where the mask of a frame belongs."""
    frame = PurePosixPath(image_id).relative_to(_FRAMES)
    return str(_MASKS / frame.with_suffix(".png"))


def _frames(spec: DatasetSpec, sequence: str, tally: Tally) -> list[str]:
    """List the frames of a sequence that are to be used."""
    folder = f"{_FRAMES}/{sequence}"
    _require_folder(spec, folder, f"the frames of sequence {printable(sequence)}")
    found = list(images_below(spec.root, folder, tally, "keep"))
    if not found:
        raise DataError(
            f"dataset {spec.name}: no images in {printable(str(spec.root / folder))}; the frames "
            f"of sequence {printable(sequence)} of {_SETS}/{spec.split}.txt belong there"
        )
    _require_unlike(spec, found)
    _require_order(spec, found)
    if (spec.root / _MASKS / sequence).is_dir():
        lost = sorted(_masks(spec, sequence) - {_mask_of(name) for name in found})
        if lost:
            raise DataError(
                f"dataset {spec.name}: no frame for the mask {printable(lost[0])}; a video needs "
                f"all of its frames: unpack {folder} anew, or remove the mask"
            )
    return found[: spec.per_class]


def _require_unlike(spec: DatasetSpec, names: list[str]) -> None:
    """Refuse two frames of one name, which would have one mask."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_mask_of(name), name)
        if other != name:
            raise DataError(
                f"dataset {spec.name}: {printable(other)} and {printable(name)} have one name and "
                "two endings; a frame is one file, remove the other"
            )


def _require_order(spec: DatasetSpec, names: list[str]) -> None:
    """Refuse numbers without leading zeros: 10.jpg stands before 2.jpg by name."""
    for name, following in pairwise(names):
        parts = (_DIGITS.split(PurePosixPath(n).stem) for n in (name, following))
        one, other = next(((a, b) for a, b in zip(*parts, strict=False) if a != b), ("", ""))
        # Where texts differ before any number does, nothing is told.
        if one.isdecimal() and other.isdecimal() and int(one) > int(other):
            raise DataError(
                f"dataset {spec.name}: by their names, {printable(name)} comes before "
                f"{printable(PurePosixPath(following).name)}, but not by their numbers; frames "
                "follow the order of names: give them and their masks leading zeros, as in "
                "00002.jpg"
            )


def _masks(spec: DatasetSpec, sequence: str) -> set[str]:
    folder = f"{_MASKS}/{sequence}"
    _require_folder(spec, folder, f"the masks of sequence {printable(sequence)}")
    found = images_below(spec.root, folder, Tally(), "keep")
    return {name for name in found if name.endswith(".png")}


def _require_folder(spec: DatasetSpec, folder: str, what: str) -> None:
    require_folder(spec, folder, f"unpack {what} there")


def _sequences(spec: DatasetSpec) -> list[str]:
    """Read the names of the split's sequences, sorted."""
    _require_folder(spec, _SETS, "the lists of sequences")
    path = spec.root / _SETS / f"{spec.split}.txt"
    if not path.is_file():
        there = sorted(name.stem for name in path.parent.glob("*.txt"))
        raise DataError(
            f"dataset {spec.name}: no list of sequences {printable(str(path))}; there are "
            f"{', '.join(map(printable, there[:10])) or 'none'}; set datasets.{spec.name}.split"
        )
    _require_folder(spec, _FRAMES, "the frames")

    def problem(name: str) -> str:
        folders = (spec.root / _FRAMES, spec.root / _MASKS)
        if is_file_name(name) and all(stays_in(folder, name) for folder in folders):
            return ""
        return (
            f"{printable(name)} is not the name of a sequence, a folder in {_FRAMES} that does not "
            "lead out of the dataset"
        )

    names = names_in(path, problem)
    if not names:
        raise DataError(f"list {printable(str(path))} names no sequences")
    return sorted(names)
