"""Whether the files that results were made from are still the same: asked for every plan.

A file counts as the same while its size and the times of its last change are. Only where these
differ is it read again, and its contents decide: files that were copied or touched run nothing
anew, and a file that was replaced is found whatever its size and its date.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.containers import containers_of
from vitfeat.data.folders import Tally
from vitfeat.data.images import ImageError, printable
from vitfeat.data.index import Index, Row
from vitfeat.data.indexed import data_of
from vitfeat.data.layouts import find
from vitfeat.data.scan import Wanted
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError
from vitfeat.files import replacing, sha256_of
from vitfeat.text import plural, size

logger = logging.getLogger(__name__)


Stats = NDArray[np.int64]
"""(file, 3): bytes, and nanoseconds of the last change of the contents and of anything."""

_ABSENT = (-1, -1, -1)

TICK_NS = 2 * 10**9
"""What changed so shortly before may change again within one tick of a file system's clock."""


def stats_of(paths: Iterable[str]) -> Stats:
    """Look at files or folders, each once; absent ones have -1."""
    found: dict[str, tuple[int, int, int]] = {}
    paths = [*paths]
    for path in dict.fromkeys(paths):
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path takes thrice the time
        except (OSError, ValueError):
            found[path] = _ABSENT
        else:
            found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return np.array([found[path] for path in paths], dtype=np.int64).reshape(-1, 3)


class Hashed(NamedTuple):
    """A file's bytes, its times as in :data:`Stats`, and the SHA-256 of its contents."""

    n_bytes: int
    written: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Hashes:
    """What a few files hold.

    ``token`` is what a plan is told as long as nothing changes,
    ``digest`` the SHA-256 over the names and contents of the files. ``files`` are those by path
    that cannot have been written while they were read.
    """

    token: str
    digest: str
    files: Mapping[str, Hashed]

    def write(self, path: Path) -> None:
        """Write what :meth:`read` reads."""
        with replacing(path) as partial:
            partial.write_text(json.dumps([self.token, self.digest, self.files]), "utf-8")

    @staticmethod
    def read(path: Path) -> Hashes | None:
        """Read the hashes; None where there are none."""
        try:
            told, digest, files = json.loads(path.read_text("utf-8"))
            return Hashes(told, digest, {name: Hashed(*file) for name, file in files.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return None


def hashes_of(files: Sequence[Path], before: Hashes | None) -> Hashes:
    """Read files, except those that were read before and have not changed since."""
    started = time.time_ns()
    found = []
    for path, stat in zip(files, stats_of(map(str, files)).tolist(), strict=True):
        known = before.files.get(str(path)) if before else None
        same = known is not None and list(known[:3]) == stat
        found.append(known if known and same else Hashed(stat[0], stat[1], stat[2], hash_of(path)))
    named = [[path.name, file.sha256] for path, file in zip(files, found, strict=True)]
    digest = hashlib.sha256(json.dumps(named).encode()).hexdigest()
    settled = started - TICK_NS
    kept = {str(p): f for p, f in zip(files, found, strict=True) if max(f[1:3]) < settled}
    return Hashes("", digest, kept)


def contents(path: Path, kept: Path) -> str:
    """Return what changes with the contents of a file, which is read again if it was touched.

    The file may be absent; `kept` is where is kept what it held.
    """
    before = Hashes.read(kept)
    now = hashes_of([path], before)
    if now != before:
        quietly(lambda: now.write(kept))
    return now.digest


def quietly(write: Callable[[], None]) -> None:
    """Write what only saves time; it need not succeed, as where results may only be read."""
    try:
        write()
    except OSError:
        return


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file; empty where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


# Of what was looked at while it may have been written: it is looked at again.
_UNSETTLED = -2

# More is not read while a run is planned: the job of the index reads with several processes.
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Snapshot:
    """What the files of an index were like when it was made.

    Attributes
    ----------
    token
        What :func:`token` returns as long as nothing changes.
    listing
        Digest of which images there were, with labels.
    images
        Paths below the root: the files or containers of the index's images, and then those of
        images that were left out.
    around
        Folders and lists: when one changes there may be other images.
    """

    token: str
    listing: str
    images: list[str]
    image_stats: Stats
    around: list[str]
    around_stats: Stats

    def now(self, root: Path) -> Snapshot:
        """Look at the files again."""
        return replace(
            self,
            image_stats=stats_of(f"{root}/{name}" for name in self.images),
            around_stats=stats_of(self.around),
        )

    def settled(self, started: int) -> Snapshot:
        """Mark what may have been written since a time, in nanoseconds."""
        return replace(
            self,
            image_stats=_settled(self.image_stats, started),
            around_stats=_settled(self.around_stats, started),
        )

    def write(self, path: Path) -> None:
        """Write the snapshot."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                image_stats=self.image_stats,
                around_stats=self.around_stats,
                texts=_packed([self.token, self.listing]),
                images=_packed(self.images),
                around=_packed(self.around),
            )

    @staticmethod
    def read(path: Path) -> Snapshot:
        """Read what :meth:`write` wrote."""
        try:
            with np.load(path, allow_pickle=False) as found:
                told, listing = _unpacked(found["texts"])
                images, around = _unpacked(found["images"]), _unpacked(found["around"])
                stats: list[Stats] = [found[f"{name}_stats"] for name in ("image", "around")]
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from error
        if [s.shape for s in stats] != [(len(images), 3), (len(around), 3)]:
            raise ValueError("arrays of other lengths")
        return Snapshot(told, listing, images, stats[0], around, stats[1])


def _packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    # No path holds the byte 0. Names that are no UTF-8 are passed through.
    return np.frombuffer(
        "".join(f"{t}\0" for t in texts).encode(errors="surrogateescape"), np.uint8
    )


def _unpacked(packed: NDArray[np.uint8]) -> list[str]:
    return packed.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def _settled(stats: Stats, started: int) -> Stats:
    last = stats[:, 1:].max(1, initial=-1)
    # What is gone already has never been looked at.
    return np.where(((last < 0) | (last >= started - TICK_NS))[:, None], _UNSETTLED, stats)


def snapshot_path(index: Path) -> Path:
    """Return where the snapshot of an index stands."""
    return index.with_name(f"{index.stem}.files.npz")


def write_snapshot(spec: DatasetSpec, index: Index, path: Path, told: str, started: int) -> None:
    """Write what the files of an index are like.

    `told` is what :func:`token` returned before the index was made, `started` when that was, in
    nanoseconds: what may have changed since is looked at again.
    """
    skipped = [name for name, _ in index.skipped]
    images = [*_files_of(index), *([] if spec.containers else skipped)]
    around = [*_folders(spec), *map(str, listing_files(spec))]
    none = np.zeros((0, 3), np.int64)
    listing = _listing(spec, set(index.image_id), set(skipped))
    snapshot = Snapshot(told, listing, images, none, around, none).now(spec.root)
    snapshot.settled(started).write(snapshot_path(path))


def _files_of(index: Index) -> list[str]:
    """Return the file of each image, or its container."""
    return [a or b for a, b in zip(index.container, index.image_id, strict=True)]


def listing_files(spec: DatasetSpec) -> list[Path]:
    """Return the files that say which images there are, and what is annotated, if there are any."""
    if spec.list is not None:
        return [spec.list]
    if spec.containers:
        return [spec.root / container for container in containers_of(spec)]
    return [*spec.annotation_files()]


def _folders(spec: DatasetSpec) -> list[str]:
    """Return a dataset's folders, also those behind links."""
    if spec.list is not None:
        return []
    # Splits of annotated datasets are no folders of the first level.
    inner = spec.split is not None and not spec.annotations and not spec.containers
    top = spec.root / str(spec.split) if inner else spec.root
    return sorted(_below(str(top), set()))


def _below(folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = os.stat(folder)  # noqa: PTH116 - as above
        if (identity := (status.st_dev, status.st_ino)) in visited:
            return
        visited.add(identity)
        yield folder
        with os.scandir(folder) as entries:
            inner = [e.path for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:
        return
    for path in inner:
        yield from _below(path, visited)


def _listing(spec: DatasetSpec, usable: Container[str], unusable: Container[str]) -> str:
    """Return a digest of the images that an index is of; empty where one is not known."""
    wanted, digest = Wanted(spec), hashlib.sha256()
    try:
        for candidate in find(spec, Tally()).candidates:
            if not wanted.any():
                break
            if not wanted.of(candidate.label) or candidate.image_id in unusable:
                continue
            if candidate.image_id not in usable:
                return ""
            wanted.take(candidate.label)
            told = candidate if candidate.place else candidate[:-1]
            digest.update(json.dumps(told).encode() + b"\n")
    except DataError:
        return ""
    return digest.hexdigest()


def token(spec: DatasetSpec, path: Path) -> str:
    """Return a text that is another one when files of a dataset are others than in its index.

    The contents of files decide, and whether there would be other images. Nothing is read as long
    as sizes and times are what they were. The text is empty where no snapshot is beside the index.
    """
    started = time.time_ns()
    if not snapshot_path(path).exists():
        return ""
    try:
        before = Snapshot.read(snapshot_path(path))
    except ValueError:
        return "unreadable"
    if not spec.root.exists():
        # Nothing to compare with: what was made from it stays.
        return before.token
    now = before.now(spec.root)
    stats = [(before.image_stats, now.image_stats), (before.around_stats, now.around_stats)]
    if all(np.array_equal(a, b) for a, b in stats):
        return before.token
    if change := _change(spec, path, before, now):
        logger.info(f"dataset {spec.name}: {change}: the index is made anew")
        digest = hashlib.sha256(now.image_stats.tobytes())
        digest.update(now.around_stats.tobytes())
        return digest.hexdigest()
    quietly(lambda: now.settled(started).write(snapshot_path(path)))
    return before.token


def _change(spec: DatasetSpec, path: Path, before: Snapshot, now: Snapshot) -> str:
    """Say what makes an index another one; empty if nothing does."""
    try:
        index = Index.read(path)
    except DataError as error:
        return str(error)
    n = len(index)
    if before.images[:n] != _files_of(index):
        return "the index is another one than its snapshot's"
    places = np.flatnonzero((before.image_stats != now.image_stats).any(1)).tolist()
    touched_files = {before.images[place]: now.image_stats[place, 0] for place in places}
    n_bytes = int(sum(max(0, n_bytes) for n_bytes in touched_files.values()))
    if n_bytes > _MOST_BYTES:
        return f"{plural(len(places), 'image')} of {size(n_bytes)} changed since it was indexed"
    if n_bytes > _MOST_BYTES // 16:
        touched = f"{plural(len(places), 'image')}, {size(n_bytes)}"
        logger.info(f"dataset {spec.name}: reading what was touched: {touched}")
    others = [
        before.images[place]
        for place in places
        # Of those that were left out the contents are not known.
        if place >= n or not _is_indexed(index.row(place), spec.root)
    ]
    if others:
        were = "image is" if len(others) == 1 else "images are"
        return f"{len(others):,} {were} not what was indexed, first {printable(others[0])}"
    if np.array_equal(before.around_stats, now.around_stats):
        return ""
    if spec.containers and index.skipped:
        return "containers of images that could not be used changed"
    listing = _listing(spec, set(index.image_id), {name for name, _ in index.skipped})
    return "" if listing and listing == before.listing else "there are other images than before"


def _is_indexed(image: Row, root: Path) -> bool:
    """Whether an image still is what was indexed."""
    try:
        data_of(image, root)
    except ImageError:
        return False
    return True


def hashes_path(table: Path) -> Path:
    """Return where is kept what the files of a table of annotations hold."""
    return table.with_name(f"{table.stem}.files.json")


def annotations_token(spec: DatasetSpec, table: Path) -> str:
    """Return a text that is another one when annotations are others than in a table.

    It is empty before the table is made.
    """
    before = Hashes.read(hashes_path(table))
    if before is None or not spec.root.exists():
        return before.token if before else ""
    now = hash_annotations(spec, table)
    if now.token != before.token:
        logger.info(
            f"dataset {spec.name}: its annotations are not what they were: they are read anew"
        )
    elif now != before:
        quietly(lambda: now.write(hashes_path(table)))
    return now.token


def hash_annotations(spec: DatasetSpec, table: Path) -> Hashes:
    """Return what the files of a table of annotations hold, to be written once that is made."""
    before = Hashes.read(hashes_path(table))
    now = hashes_of(listing_files(spec), before)
    same = before is None or now.digest == before.digest
    return replace(now, token=(before.token if before else "") if same else now.digest)
