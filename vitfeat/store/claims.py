"""Who writes which blocks of a store: no two jobs the same ones, on whatever nodes they run.

A claim is a file beside the blocks' markers, locked for as long as its job lives: the kernel, or
the server of a shared file system, frees it with the process. It says who holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vitfeat.errors import StoreError

_NAME = re.compile(r"(\d+)-(\d+)\.claim")


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Be the only one that creates a store, replaces it or claims some of it; waits for others."""
    # The file stays: removing it would let a third job lock another file of the same name.
    with path.with_name(f".{path.name}.lock").open("a") as handle:
        _lock(path, handle, fcntl.LOCK_EX)
        yield


def claim(path: Path, folder: Path, blocks: range) -> IO[str]:
    """Claim some consecutive blocks, within :func:`creating`.

    Parameters
    ----------
    path
        The store, for messages.
    folder
        Where its claims stand.
    blocks
        The blocks.

    Returns
    -------
    IO
        The claim holds until it is closed.

    Raises
    ------
    StoreError
        Another job has some of them.
    """
    refuse_if_claimed(path, folder, blocks)
    handle = (folder / f"{blocks.start:06d}-{blocks.stop:06d}.claim").open("a+")
    _lock(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    handle.truncate(0)
    handle.write(_who())
    handle.flush()
    return handle


def refuse_if_claimed(path: Path, folder: Path, blocks: range | None = None) -> None:
    """Refuse what another job is at work on: some blocks, or any.

    Raises
    ------
    StoreError
        Saying who has them.
    """
    for file in sorted(folder.glob("*.claim")):
        start, stop = map(int, _NAME.fullmatch(file.name).groups())  # type: ignore[union-attr]
        if blocks is not None and (stop <= blocks.start or blocks.stop <= start):
            continue
        with suppress(FileNotFoundError), file.open("r+") as handle:
            try:
                _lock(path, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{path}: another process is writing this store ({handle.read()}; blocks "
                    f"{start} to {stop - 1}); wait until it ends"
                ) from error


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
