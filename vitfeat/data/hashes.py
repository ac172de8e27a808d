"""Files that are read again only when they were touched: by size and times, then by contents."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.files import replacing, sha256_of

Stats = NDArray[np.int64]
"""(file, 3): bytes, and nanoseconds of the last change of the contents and of anything."""

_ABSENT = (-1, -1, -1)

TICK_NS = 2 * 10**9
"""What changed so shortly before may change again within one tick of a file system's clock."""


def stats_of(paths: Iterable[str]) -> Stats:
    """Look at files or folders; absent ones have -1."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path takes thrice the time
        except (OSError, ValueError):
            found.append(_ABSENT)
        else:
            found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


class Hashed(NamedTuple):
    """A file's bytes, its times as in :data:`Stats`, and the SHA-256 of its contents."""

    n_bytes: int
    written: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Hashes:
    """What a few files hold.

    ``token`` is what a plan is told as long as nothing changes (:mod:`vitfeat.data.unchanged`),
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
