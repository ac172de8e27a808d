"""The layout of DAVIS-2017: sequences of frames, with a mask of objects for some or all of them.

::

    root/
      ImageSets/2017/{split}.txt              names of sequences, a line each
      JPEGImages/480p/{sequence}/00000.jpg    frames, in the order of their names
      Annotations/480p/{sequence}/00000.png   masks, by the names of the frames
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

from vitfeat.data.annotations import FrameRow
from vitfeat.data.folders import Tally, images_below, one_too_deep
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.listing import Candidate, Listing, require_root, require_size
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
    firsts = _Firsts(spec)
    partly = []
    for sequence in _sequences(spec):
        if sequence not in used:
            continue
        masks = _masks(spec, sequence)
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
                    firsts.add(sequence, read_mask(spec.root / mask, size[::-1], where), where)
            elif sequence not in partly:
                partly.append(sequence)
            rows.append(FrameRow(sequence, number, name, mask if mask in masks else ""))
    notes += firsts.notes()
    if partly:
        notes.append(
            f"{plural(len(partly), 'sequence')} without masks of all frames, followed but not "
            f"scored; first {printable(partly[0])}"
        )
    return rows


# So many beside void are shades: sequences of DAVIS-2017 have ten objects at most.
_MOST_OBJECTS = 32

_RESOLUTION = "take mask and frame from the same resolution of the dataset"


class _Firsts:
    """What is odd in the first masks of sequences."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec
        self._empty: list[str] = []
        self._void: list[str] = []
        self._gaps: list[str] = []

    def add(self, sequence: str, mask: Mask, where: str) -> None:
        """Look at the first mask of a sequence."""
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
                f"in its place in all masks, else take the sequence out of {_SETS}/"
                f"{self._spec.split}.txt"
            )
        if not objects:
            self._empty.append(printable(sequence))
        elif len(objects) < objects[-1]:
            numbers = ", ".join(map(str, objects))
            self._gaps.append(f"{printable(sequence)} with the objects {numbers}")
        if has_void:
            self._void.append(printable(sequence))

    def notes(self) -> Iterator[str]:
        """Yield a line for people about each."""
        for found, words in (
            (self._empty, "whose first mask holds no object, left out"),
            (self._void, "whose first mask has pixels of 255 (void), which count as background"),
            (
                self._gaps,
                "whose first mask passes over numbers of objects: what has no pixel in it is no "
                "object (analyses.video.objects: official scores it, as the official evaluation "
                "does)",
            ),
        ):
            if found:
                yield f"{plural(len(found), 'sequence')} {words}; first {found[0]}"


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
    if not (spec.root / folder).is_dir():
        raise DataError(
            f"dataset {spec.name}: {what} are missing: no folder "
            f"{printable(str(spec.root / folder))}{one_too_deep(spec.root, folder)}; unpack them "
            f"there, or set datasets.{spec.name}.root"
        )


def _sequences(spec: DatasetSpec) -> list[str]:
    """Read the names of the split's sequences, sorted."""
    root = spec.root
    require_root(spec)
    _require_folder(spec, _SETS, "the lists of sequences")
    path = root / _SETS / f"{spec.split}.txt"
    if not path.is_file():
        found = sorted(name.stem for name in path.parent.glob("*.txt"))
        raise DataError(
            f"dataset {spec.name}: no list of sequences {printable(str(path))}; there are "
            f"{', '.join(map(printable, found[:10])) or 'none'}; set datasets.{spec.name}.split"
        )
    _require_folder(spec, _FRAMES, "the frames")
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        name = line.strip()
        if not name:
            continue
        if not _is_sequence(root, name):
            raise _at(
                path,
                number,
                f"{printable(name)} is not the name of a sequence, a folder in {_FRAMES} that does "
                "not lead out of the dataset",
            )
        if name in lines:
            raise _at(
                path,
                number,
                f"{printable(name)} stands on line {lines[name]} already; remove one of them",
            )
        lines[name] = number
    if not lines:
        raise DataError(f"list {printable(str(path))} names no sequences")
    return sorted(lines)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(f"list {printable(str(path))} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(
            f"list {printable(str(path))} is not valid UTF-8; save it as UTF-8"
        ) from None


def _at(path: Path, line: int, problem: str) -> DataError:
    return DataError(f"list {printable(str(path))}, line {line}: {problem}")


def _is_sequence(root: Path, name: str) -> bool:
    if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        return False
    return all(_stays_in(root / folder, name) for folder in (_FRAMES, _MASKS))


def _stays_in(folder: Path, name: str) -> bool:
    """Tell whether a folder of this name would not be a link that leads elsewhere."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(folder / name)]) == real
