"""The layout of WebDataset: images in tar shards, or in zips, read in place.

Members of one sample share their name up to its first dot: ``000012.jpg``, ``000012.cls``,
``000012.json``. An image's id is the name of its member, so that an archive of a folder gives the
ids, the order and the store of that folder.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vitfeat.data.containers import FOLDER, Found, broken, containers_of, listing_of, shown
from vitfeat.data.folders import Tally
from vitfeat.data.images import image_extensions, printable
from vitfeat.data.index import Place
from vitfeat.data.listing import Listing
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

_DEFLATED = "deflated"

# The part of a zip's header of a member that has a fixed size; its name and extras follow.
_ZIP_HEADER = 30


class _Member(NamedTuple):
    name: str
    place: Place


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of all shards, sorted by the parts of their names as files would be."""
    found: list[Found] = []
    for container in containers_of(spec):
        called, path = shown(spec, container), spec.root / container
        samples: dict[str, list[_Member]] = {}
        for member in _members(spec, container):
            samples.setdefault(_key(member.name), []).append(member)
        for members in samples.values():
            image = _image(spec, called, members, tally)
            if image is not None:
                label = None if spec.labels == FOLDER else _label(spec, path, members)
                where = f"{called}#{image.name}"
                found.append(Found(image.name, where, label, image.place))
    return listing_of(spec, found)


def read(path: Path, place: Place) -> bytes:
    """Read a member of an archive."""
    with path.open("rb") as file:
        file.seek(place.offset)
        if place.part != _DEFLATED:
            data = file.read(place.n_bytes)
        else:
            # What cannot be made smaller takes a little more than its size.
            packed = file.read(place.n_bytes + place.n_bytes // 1000 + 64)
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, place.n_bytes)
    if len(data) != place.n_bytes:
        raise EOFError("the archive ends within it")
    return data


def _members(spec: DatasetSpec, container: str) -> Iterator[_Member]:
    path = spec.root / container
    members = _of_zip if path.suffix.lower() == ".zip" else _of_tar
    try:
        for name, part, offset, n_bytes in members(path):
            yield _Member(name, Place(container, part, offset, n_bytes))
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise broken(spec, container, error) from None


def _of_tar(path: Path) -> Iterator[tuple[str, str, int, int]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.issparse():
                raise tarfile.ReadError(f"{member.name} is a sparse file: unpack the archive")
            if member.offset_data + member.size > size:
                raise EOFError(f"it ends within {member.name}")
            if member.isreg():
                yield member.name, "", member.offset_data, member.size
        end = tar.offset
    # The reader stops without a word at a header that is none.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("the blocks that end a tar are missing")


def _of_zip(path: Path) -> Iterator[tuple[str, str, int, int]]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is compressed otherwise than by deflate")
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename} is encrypted")
            file.seek(member.header_offset)
            header = file.read(_ZIP_HEADER)
            start = member.header_offset + len(header)
            start += int.from_bytes(header[26:28], "little")
            start += int.from_bytes(header[28:30], "little")
            part = _DEFLATED if member.compress_type == zipfile.ZIP_DEFLATED else ""
            yield member.filename, part, start, member.file_size


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.', 1)[0]}"


def _ending(member: _Member) -> str:
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _image(spec: DatasetSpec, called: str, members: list[_Member], tally: Tally) -> _Member | None:
    """Return the image of a sample; None where it has none."""
    if PurePosixPath(members[0].name).name.startswith("."):
        return None
    if spec.images is not None:
        images = [m for m in members if _ending(m) == spec.images.lstrip(".")]
    else:
        images = [m for m in members if PurePosixPath(m.name).suffix.lower() in image_extensions()]
    if len(images) > 1:
        names = " and ".join(printable(image.name) for image in images[:2])
        raise spec.error(
            "images",
            f"{printable(called)} has {names} in one sample (an image and its mask, or a copy?); "
            f"name the ending of the images, such as {_ending(images[0])}",
        )
    if not images:
        tally.ignored_files += 1
        return None
    return images[0]


def _label(spec: DatasetSpec, path: Path, members: list[_Member]) -> str | None:
    """Read a sample's label, from the member of that ending or from the JSON."""
    wanted = spec.labels or "cls"
    by_ending = {_ending(member): member for member in members}
    if wanted in by_ending:
        text = read(path, by_ending[wanted].place).decode("utf-8", "replace").strip()
    elif "json" in by_ending:
        text = _of_json(path, by_ending["json"], spec.labels or "label")
    else:
        text = ""
    if not text and spec.labels is not None:
        raise spec.error(
            "labels",
            f"{printable(members[0].name)} has neither a member ending in {wanted} nor a JSON "
            f"member with the key {wanted!r}",
        )
    return text or None


def _of_json(path: Path, member: _Member, key: str) -> str:
    try:
        content: Any = json.loads(read(path, member.place))
    except ValueError:
        raise DataError(f"{printable(member.name)} of {path.name} is no JSON") from None
    value = content.get(key) if isinstance(content, dict) else None
    return "" if value is None else str(value)
