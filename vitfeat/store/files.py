"""The files of a store, on a disk or behind a URL: the one way in which stores are read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from vitfeat.store.paths import Place


class Files(Protocol):
    """The files below one place."""

    @property
    def place(self) -> Place:
        """Where they are."""

    @property
    def is_remote(self) -> bool:
        """Whether each look at one of them is a request."""

    def read(self, name: str) -> bytes:
        """Return a file whole.

        Raises
        ------
        FileNotFoundError
            There is none.
        OSError
            It cannot be read.
        """

    def read_range(self, name: str, offset: int, length: int, size: int | None) -> bytes:
        """Return a part of a file.

        Parameters
        ----------
        name
            The file.
        offset, length
            Which part; an offset below 0 counts from the end.
        size
            How large the file must be, where that is known.

        Raises
        ------
        FileNotFoundError
            There is none.
        SizeError
            It has another size, where that was seen on the way.
        OSError
            It cannot be read.
        """

    def fetch(self, names: Iterable[str]) -> None:
        """Get files ready that will be read whole, several at once."""


class SizeError(Exception):
    """A file that has another size than it must have; says which, in words."""


class LocalFiles:
    """Files of a folder."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.place = folder

    def read(self, name: str) -> bytes:
        """Return a file whole."""
        return (self.place / name).read_bytes()

    def read_range(self, name: str, offset: int, length: int, size: int | None) -> bytes:
        """Return a part of a file, whose size was compared when the store was opened."""
        file = os.open(self.place / name, os.O_RDONLY)
        try:
            if offset < 0:
                offset = max(0, os.fstat(file).st_size + offset)
            return os.pread(file, length, offset)
        finally:
            os.close(file)

    def fetch(self, names: Iterable[str]) -> None:
        """Do nothing: they are there."""


def files_at(place: Place) -> Files:
    """Return the files of a place."""
    if isinstance(place, Path):
        return LocalFiles(place)
    from vitfeat.store.remote import RemoteFiles

    return RemoteFiles(place)
