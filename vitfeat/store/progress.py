"""What stands in an unfinished store beside its arrays: which blocks are there, and their pieces.

A block's marker says that all of it is on the disk. What the block has of shards that reach over
blocks is in a file of its own until they are put together; the marker has its checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vitfeat.files import sha256_of, write_files
from vitfeat.store.layout import Layout

#: The folder of it all in an unfinished store.
PROGRESS = ".progress"

# What the files of the store were when it was created.
_FILES = "files"


@dataclass(frozen=True)
class Marker:
    """What is known of a block that is there.

    Attributes
    ----------
    forward_images
        How many images were pushed through the model to make it.
    notes
        What its making has to say about the numbers.
    n_bytes, crc32c
        Of its pieces.
    """

    forward_images: int
    notes: Sequence[str]
    n_bytes: int
    crc32c: int


class Pieces(NamedTuple):
    """What a block has of shards that reach over blocks: one file, or none."""

    path: Path
    parts: Sequence[bytes]

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""
        return sum(map(len, self.parts))

    @property
    def crc32c(self) -> int:
        """Checksum of the file."""
        crc = 0
        for part in self.parts:
            crc = google_crc32c.extend(crc, part)
        return crc


def record_files(folder: Path) -> None:
    """Write down what the files of a store are that was just created, beside the markers."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in found}
    (folder / PROGRESS).mkdir()
    (folder / PROGRESS / _FILES).write_text(json.dumps(hashes), "utf-8")


def changed_files(folder: Path) -> list[str]:
    """Return the files that are not what they were when the store was created.

    Raises
    ------
    OSError, ValueError
        That cannot be told.
    """
    hashes = json.loads((folder / PROGRESS / _FILES).read_text("utf-8"))
    return [name for name, expected in hashes.items() if sha256_of(folder / name) != expected]


class Progress:
    """The markers and pieces of one unfinished store.

    Parameters
    ----------
    partial, layout
        The store's folder, and its arrays.
    """

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
        found: dict[str, NDArray[Any]] = {}
        offset = 0
        for spec in self._gathered:
            shape = (len(self._layout.entries(spec, rows)), *spec.shape)
            if shape[0]:
                path = self._pieces(block)
                found[spec.name] = np.memmap(path, spec.dtype, "r", offset, shape)
                offset += found[spec.name].nbytes
        return found

    def has_pieces(self, block: int, marker: Marker) -> bool:
        """Return whether the pieces of a block are those that its marker was written for."""
        crc, n_bytes = 0, 0
        if marker.n_bytes:
            try:
                with self._pieces(block).open("rb") as file:
                    while content := file.read(2**22):
                        crc, n_bytes = google_crc32c.extend(crc, content), n_bytes + len(content)
            except FileNotFoundError:
                return False
        return (n_bytes, crc) == (marker.n_bytes, marker.crc32c)

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
