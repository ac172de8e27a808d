"""Files that appear under their name only when they are complete, and on the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

# Files that are synced at once: a file system's journal commits them together.
_SYNCED_AT_ONCE = 16

# What a file system says that cannot sync folders, and need not.
_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write beside `path`, whose name it takes if all went well.

    The folder is made when absent; after an error the file is as it was. What killed processes
    have left in the folder goes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    partial = partial_name(path)
    try:
        yield partial
        move(partial, path)
    except OSError as error:
        # A full disk has no name, and that of the partial file nobody knows.
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """Return where this process writes a file, beside its place: no other one writes there."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


# Once a process and folder: some have thousands of files.
@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left of files."""
    partial = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.partial")
    with os.scandir(folder) as entries:
        found = {entry.name: partial.fullmatch(entry.name) for entry in entries}
    for name, process in found.items():
        if process and not _is_running(int(process[1])):
            (folder / name).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def move(source: Path, target: Path) -> None:
    """Give a file its name once its bytes are on the disk, and see that the name is, too.

    A name alone may outlive a power cut that its file's bytes do not.
    """
    sync([source])
    source.replace(target)
    sync([target.parent])


def write_files(files: Iterable[tuple[Path, Iterable[bytes]]], workplace: Path) -> None:
    """Write files, which are on the disk under their names when it returns.

    None has its name before the bytes of all are on the disk; they are written in `workplace`, a
    folder of the same file system.
    """
    partial: dict[Path, Path] = {}
    try:
        for path, parts in files:
            partial[path] = partial_name(workplace / f"{len(partial)}")
            with partial[path].open("wb") as file:
                file.writelines(parts)
        sync(partial.values())
        for path, written in partial.items():
            written.replace(path)
        sync({path.parent for path in partial})
    finally:
        for written in partial.values():
            written.unlink(missing_ok=True)


def sync(paths: Iterable[Path]) -> None:
    """Wait until files and folders are on the disk.

    Of a folder these are the names in it, not the files. Several at once take about as long as one.
    """
    paths = [*paths]
    if len(paths) < 2:
        for path in paths:
            _sync(path)
        return
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        for _ in pool.map(_sync, paths):
            pass


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all below it are on the disk."""
    sync([folder, *folder.rglob("*")])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDERS or not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, sorted and indented."""
    with replacing(path) as partial:
        partial.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON, sorted and indented."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: Path) -> Path:
    """Return the nearest that exists of a path and the folders above it."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
