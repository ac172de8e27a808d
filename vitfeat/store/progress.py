"""What stands in an unfinished store beside its arrays: which blocks are there, who writes them.

A block's marker says that all of it is on the disk. What the block has of shards that reach over
blocks is in a file of its own until they are put together; the marker has its checksum.

No two jobs write the same blocks, on whatever nodes they run. A claim is a file beside the markers,
locked for as long as its job lives: the kernel, or the server of a shared file system, frees it
with the process. It says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import StoreError, what_to_do
from vitfeat.files import sha256_of, write_files
from vitfeat.store.layout import Layout

#: The folder of it all in an unfinished store.
PROGRESS = ".progress"

# What the files of the store were when it was created.
_FILES = "files"

_CLAIM = re.compile(r"(\d+)-(\d+)\.claim")


@dataclass(frozen=True)
class Marker:
    """What is known of a block that is there."""

    #: How many images were pushed through the model to make it.
    forward_images: int
    #: What its making has to say about the numbers.
    notes: Sequence[str]
    #: Of its pieces.
    n_bytes: int
    crc32c: int


class Pieces(NamedTuple):
    """What a block has of shards that reach over blocks: one file, or none."""

    path: Path
    parts: Sequence[bytes]

    @property
    def checksum(self) -> tuple[int, int]:
        """Bytes and CRC-32C of the file."""
        return _checksum(self.parts)


def _checksum(parts: Iterable[bytes]) -> tuple[int, int]:
    n_bytes, crc = 0, 0
    for part in parts:
        n_bytes, crc = n_bytes + len(part), google_crc32c.extend(crc, part)
    return n_bytes, crc


def record_files(folder: Path) -> None:
    """Write down what the files of a store are that was just created, beside the markers."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    (folder / PROGRESS).mkdir()
    (folder / PROGRESS / _FILES).write_text(json.dumps(hashes), "utf-8")


def changed_files(folder: Path) -> list[str]:
    """Return the files that are not what they were when the store was created."""
    hashes = json.loads((folder / PROGRESS / _FILES).read_text("utf-8"))
    return [name for name, expected in hashes.items() if sha256_of(folder / name) != expected]


class Progress:
    """The markers and pieces of one unfinished store, by its folder and arrays."""

    def __init__(self, partial: Path, layout: Layout) -> None:
        self.folder = partial / PROGRESS
        self._layout = layout
        self._gathered = [a for a in layout.arrays if layout.is_gathered(a)]

    def pieces(self, block: int, arrays: Mapping[str, NDArray[Any]]) -> Pieces:
        """Return what a block has of shards that reach over blocks."""
        parts = [arrays[spec.name].tobytes() for spec in self._gathered]
        return Pieces(self._pieces(block), [part for part in parts if part])

    def read_pieces(self, block: int) -> dict[str, NDArray[Any]]:
        """Return what a block has of each such array, read when it is used."""
        rows = self._layout.rows(block)
        pieces: dict[str, NDArray[Any]] = {}
        offset = 0
        for spec in self._gathered:
            shape = (len(self._layout.entries(spec, rows)), *spec.shape)
            if shape[0]:
                path = self._pieces(block)
                pieces[spec.name] = np.memmap(path, spec.dtype, "r", offset, shape)
                offset += pieces[spec.name].nbytes
        return pieces

    def has_pieces(self, block: int, marker: Marker) -> bool:
        """Return whether the pieces of a block are those that its marker was written for."""
        if not marker.n_bytes:
            return not marker.crc32c
        try:
            with self._pieces(block).open("rb") as file:
                checksum = _checksum(iter(lambda: file.read(2**22), b""))
        except FileNotFoundError:
            return False
        return checksum == (marker.n_bytes, marker.crc32c)

    def remove_pieces(self, block: int) -> None:
        """Remove the pieces of a block, whose shards are all there."""
        self._pieces(block).unlink(missing_ok=True)

    def write_marker(self, block: int, marker: Marker) -> None:
        """Say that a block is there."""
        text = json.dumps(marker.__dict__)
        content = f"{google_crc32c.value(text.encode())} {text}".encode()
        write_files([(self._marker(block), [content])], self.folder)

    def read_marker(self, block: int) -> Marker | None:
        """Return the marker of a block, None where none stands or it is damaged."""
        try:
            crc, _, text = self._marker(block).read_text("utf-8").partition(" ")
            if int(crc) != google_crc32c.value(text.encode()):
                return None
            return Marker(**json.loads(text))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def is_begun(self, block: int) -> bool:
        """Return whether a marker of a block stands there, right or wrong."""
        return self._marker(block).exists()

    def _marker(self, block: int) -> Path:
        return self.folder / f"{block:06d}"

    def _pieces(self, block: int) -> Path:
        return self.folder / f"{block:06d}.pieces"


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Be the only one that creates a store, replaces it or claims some of it; waits for others."""
    # The file stays: removing it would let a third job lock another file of the same name.
    with _open(path, path.with_name(f".{path.name}.lock"), "a") as handle:
        _lock(path, handle, fcntl.LOCK_EX)
        yield


def claim(path: Path, folder: Path, blocks: range) -> IO[str]:
    """Claim consecutive blocks of a store, within :func:`creating`, until the answer is closed."""
    refuse_if_claimed(path, folder, blocks)
    handle = _open(path, folder / f"{blocks.start:06d}-{blocks.stop:06d}.claim", "a+")
    _lock(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    handle.truncate(0)
    try:
        # Past Python's buffer, which would try again when it is closed.
        os.write(handle.fileno(), _who().encode())
    except OSError as error:
        raise _unwritable(path, handle.name, error) from error
    return handle


def refuse_if_claimed(path: Path, folder: Path, blocks: range | None = None) -> None:
    """Refuse what another job is at work on, and say who: some blocks, or any."""
    for file in sorted(folder.glob("*.claim")):
        start, stop = map(int, _CLAIM.fullmatch(file.name).groups())  # type: ignore[union-attr]
        if blocks is not None and (stop <= blocks.start or blocks.stop <= start):
            continue
        with suppress(FileNotFoundError), _open(path, file, "r+") as handle:
            try:
                _lock(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{path}: another process is writing this store ({handle.read()}; blocks "
                    f"{start} to {stop - 1}); wait until it ends"
                ) from error


def _open(path: Path, file: Path, mode: str) -> IO[str]:
    """Open a file by which jobs that write a store know of each other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return file.open(mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unwritable(path, error.filename, error) from error


def _unwritable(path: Path, file: str, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be written ({file}: {error.strerror}); {what_to_do(error)}")


def _lock(path: Path, handle: IO[str], how: int) -> None:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise StoreError(
            f"{path}: its file system does not lock files ({error.strerror}), so that two jobs "
            "might write one store; choose another one, or have it mounted with locks (Lustre: "
            "-o flock)"
        ) from error


def _who() -> str:
    job = next(
        (f", job {os.environ[k]}" for k in ("SLURM_JOB_ID", "PBS_JOBID") if k in os.environ), ""
    )
    return f"{socket.gethostname()}, process {os.getpid()}{job}"
