"""Images that are no files of their own: where they stand in a container, and their bytes.

A container is read in place. What it holds is an image file's bytes; pixels without a file (an
array of images, a frame of a video) are taken as the binary PGM or PPM file of these pixels. So an
image has one SHA-256 wherever it is kept.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import posixpath
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.images import ImageError, printable, read_bytes
from vitfeat.data.index import Place
from vitfeat.data.listfile import numbered
from vitfeat.data.listing import Candidate, Listing, parts_of
from vitfeat.data.spec import LAYOUTS, DatasetSpec
from vitfeat.errors import DataError, is_of_the_system, what_to_do

_T = TypeVar("_T")

# Readers have a position, and threads of one process share them.
_LOCK = threading.RLock()

FOLDER = "folder"
"""What ``labels`` says to label images by the folder that they are in."""
PLACE = "place"
"""What ``ids`` says to name images by where they stand."""


class Found(NamedTuple):
    """An image that a container has."""

    name: str | None
    """What the container calls it, a POSIX path."""
    where: str
    """Where it stands, in words that are an id."""
    label: str | None
    place: Place


def containers_of(spec: DatasetSpec) -> list[str]:
    """Return a dataset's containers, as POSIX paths below its root; ``.`` where that is the one.

    Of a split are those in the folder of its name, and those whose names begin with it.
    """
    require_library(spec)
    if not spec.root.exists():
        raise DataError(
            f"dataset {spec.name}: {printable(str(spec.root))} does not exist; set "
            f"datasets.{spec.name}.root"
        )
    if spec.root.is_file():
        return ["."]
    found = sorted(
        (path.relative_to(spec.root) for path in spec.root.rglob("*") if _is_of(spec, path)),
        key=lambda path: path.parts,
    )
    if not found:
        endings = ", ".join(spec.containers)
        packed = next((p for p in spec.root.rglob("*") if p.name.endswith((".tar.gz", ".tgz"))), "")
        hint = f"; {printable(str(packed))} is compressed: gunzip it" if packed else ""
        raise DataError(
            f"dataset {spec.name}: no file ending in {endings} in {printable(str(spec.root))}"
            f"{f' of the split {spec.split}' if spec.split else ''}{hint}; set "
            f"datasets.{spec.name}.root or split"
        )
    return [path.as_posix() for path in found]


def _is_of(spec: DatasetSpec, path: Path) -> bool:
    inner = path.relative_to(spec.root)
    if path.suffix.lower() not in spec.containers or any(p.startswith(".") for p in inner.parts):
        return False
    if spec.split is None or spec.split in inner.parts[:-1]:
        return True
    name = inner.name.removeprefix(spec.split)
    return name != inner.name and name[:1] in ".-_"


def shown(spec: DatasetSpec, container: str) -> str:
    """Return what a container is called in ids and messages."""
    return spec.root.name if container == "." else container


def require_library(spec: DatasetSpec) -> None:
    """Check that the library is installed that reads a layout's containers."""
    extra = LAYOUTS[spec.layout].extra
    module = {"parquet": "pyarrow", "hdf5": "h5py", "video": "av"}.get(extra or "")
    if module and importlib.util.find_spec(module) is None:
        raise DataError(
            f"dataset {spec.name}: the layout {spec.layout} is read by {module}, which is not "
            f"installed: pip install 'vitfeat[{extra}]'"
        )


def opened(make: Callable[[Path], _T], path: Path) -> _T:
    """Return what reads a container, made once in a process as long as the file is the same."""
    status = path.stat()
    return _opened(make, path, status.st_size, status.st_mtime_ns, os.getpid())  # type: ignore[return-value]


@functools.lru_cache(maxsize=4)
def _opened(make: Callable[[Path], object], path: Path, *_state: int) -> object:
    return make(path)


def bytes_of(root: Path, name: str, place: Place | None) -> bytes:
    """Read an image's bytes, from its file or from its container; raises ImageError."""
    if place is None:
        return read_bytes(root / name, name)
    path = root / place.container
    layout = next(known for known, of in LAYOUTS.items() if path.suffix.lower() in of.containers)
    try:
        with _LOCK:
            data: bytes = importlib.import_module(f"vitfeat.data.{layout}").read(path, place)
    except ImageError:
        raise
    # What is damaged makes readers raise nearly anything, as Pillow's decoders do.
    except Exception as error:
        if is_of_the_system(error):
            raise DataError(f"{path}: cannot be read: {error}; {what_to_do(error)}") from error
        what = f"{type(error).__name__}: {error}"
        raise ImageError(name, f"cannot be read from {path.name} ({what})") from None
    return data


def pixels_file(pixels: NDArray[np.uint8]) -> bytes:
    """Return the binary PPM file of (height, width, 3) pixels, or the PGM file of grey ones."""
    kind = b"P5" if pixels.ndim == 2 or pixels.shape[2] == 1 else b"P6"
    return b"%s\n%d %d\n255\n" % (kind, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def broken(spec: DatasetSpec, container: str, error: Exception | str) -> DataError:
    """Make the error of a container that cannot be read."""
    what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    if isinstance(error, Exception) and is_of_the_system(error):
        return DataError(
            f"dataset {spec.name}: {printable(shown(spec, container))} cannot be read "
            f"({what}); {what_to_do(error)}"
        )
    return DataError(
        f"dataset {spec.name}: {printable(shown(spec, container))} is damaged or cut off "
        f"({' '.join(what.split())}); fetch or write it again"
    )


def the_only(
    spec: DatasetSpec, key: str, container: str, have: Sequence[str], fit: Sequence[str]
) -> str:
    """Return the column or array that a setting names, or else the only one that fits."""
    where = printable(shown(spec, container))
    there = ", ".join(map(printable, [*have][:20])) or "nothing"
    if (given := getattr(spec, key)) is not None:
        if given not in have:
            raise spec.error(key, f"{where} has no {given!r}; it has {there}")
        return str(given)
    if len(fit) != 1:
        problem = f"{where} has {len(fit) or 'no'} columns or arrays of images"
        raise spec.error(key, f"{problem}; name one of what it has: {there}")
    return fit[0]


def listing_of(
    spec: DatasetSpec, found: Sequence[Found], names: Sequence[str] = (), *, ordered: bool = False
) -> Listing:
    """Return what containers have as candidates, with checked ids and numbered labels.

    `names` are those of labels that are numbers. Images stay in the order of their containers where
    it is `ordered`, since these are read in order; else they have the order of their ids, which is
    that of files.
    """
    where = printable(str(spec.root))
    if not found:
        raise DataError(f"dataset {spec.name}: no images in the containers of {where}")
    named = spec.ids != PLACE and all(one.name for one in found)
    ids: dict[str, Found] = {}
    for one in found:
        image_id = _checked(spec, one) if named else one.where
        if (other := ids.setdefault(image_id, one)) is not one:
            raise DataError(
                f"dataset {spec.name}: two images are called {printable(image_id)} "
                f"({printable(other.where)} and {printable(one.where)}); give each a name of its "
                f"own, or set datasets.{spec.name}.ids: {PLACE}"
            )
    labels = {i: _folder_of(spec, i, one) for i, one in ids.items()}
    without = next((i for i, label in labels.items() if label is None), None)
    if without is not None and any(label is not None for label in labels.values()):
        raise DataError(
            f"dataset {spec.name}: {printable(without)} has no label, and others have one; label "
            "all or none"
        )
    numbers = _numbers(spec, {label for label in labels.values() if label is not None}, names)
    candidates = [
        Candidate(i, *numbers.get(labels[i] or "", (-1, "")), place=one.place)
        for i, one in ids.items()
    ]
    if not ordered:
        candidates.sort(key=lambda candidate: parts_of(candidate.image_id))
    return Listing(iter(candidates), has_labels=without is None)


def _checked(spec: DatasetSpec, one: Found) -> str:
    """Return the id of a named image: a path that stays below the dataset's root."""
    written = one.name or ""
    image_id = posixpath.normpath(written)
    try:
        image_id.encode()
    except UnicodeEncodeError:
        image_id = ".."
    if image_id in (".", "..") or image_id.startswith(("/", "../")) or "\0" in image_id:
        raise DataError(
            f"dataset {spec.name}: the name {printable(written)!r} ({printable(one.where)}) is no "
            f"path within the dataset; name it anew, or set datasets.{spec.name}.ids: {PLACE}"
        )
    return image_id


def _folder_of(spec: DatasetSpec, image_id: str, one: Found) -> str | None:
    if spec.labels != FOLDER:
        return one.label
    name = one.name or one.where
    folder = PurePosixPath(posixpath.normpath(name)).parent.name
    if not folder:
        raise spec.error("labels", f"{printable(image_id)} is in no folder")
    return folder


def _numbers(
    spec: DatasetSpec, labels: Iterable[str], names: Sequence[str]
) -> dict[str, tuple[int, str]]:
    numbers = numbered(labels)
    if names:
        inside = {label: n for label, (n, _) in numbers.items() if 0 <= n < len(names)}
        numbers = {label: (n, names[n]) for label, n in inside.items()}
    if strange := next((label for label in labels if numbers.get(label, (-1, ""))[0] < 0), None):
        raise DataError(
            f"dataset {spec.name}: the label {printable(strange)} is none of "
            f"{f'the {len(names)} named classes' if names else 'the numbers from 0'}"
        )
    return numbers
