"""A GPU for every process: no two jobs of vitfeat on one, whoever started them."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vitfeat.text import plural

logger = logging.getLogger(__name__)

_LISTED = re.compile(r"^(?P<kind>\s*MIG|GPU) .*\(UUID: (?P<uuid>[^)]+)\)")
_SECONDS_BETWEEN_TRIES = 0.5


class Gpu(NamedTuple):
    """A GPU that CUDA shows to this process, or a part of one (MIG)."""

    #: As ``CUDA_VISIBLE_DEVICES`` names it.
    entry: str
    #: The same for every process that sees it.
    name: str


@contextmanager
def own_gpu(device: str) -> Iterator[str]:
    """Let CUDA show this process one GPU that no other one has, for as long as the context lasts.

    Waits until one is free, and gives its name for PyTorch, which then sees no other. The claim is
    a name in Linux's abstract namespace of sockets: it leaves no file, holds across users, and the
    kernel frees it when the process ends, however it ends.
    """
    wanted = _wanted(device)
    if not wanted:
        yield device
        return
    with _claimed(wanted) as gpu:
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu.entry
        try:
            yield "cuda" if device.startswith("cuda") else device
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA would show to this process, known without importing PyTorch."""
    groups = _listed()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return [Gpu(uuid, uuid) for group in groups for uuid in group]
    gpus = []
    for entry in map(str.strip, shown.split(",")):
        # As CUDA does: what stands behind an entry that names nothing is not seen.
        if not re.fullmatch(r"\d+|(GPU|MIG)-\S+", entry):
            break
        gpus.append(Gpu(entry, _name(entry, groups)))
    return gpus


def _wanted(device: str) -> list[Gpu]:
    if device != "auto" and not device.startswith("cuda"):
        return []
    gpus = visible_gpus()
    _, _, index = device.partition(":")
    if not index:
        return gpus
    # One that does not exist is an error of whoever uses it.
    return gpus[int(index) : int(index) + 1] if index.isdigit() else []


def _listed() -> list[list[str]]:
    """Return the UUIDs of every GPU that the driver lists, or those of its parts."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    whole: list[str] = []
    parts: list[list[str]] = []
    for line in done.stdout.splitlines():
        if (match := _LISTED.match(line)) is None:
            continue
        if match["kind"] == "GPU":
            whole.append(match["uuid"])
            parts.append([])
        elif parts:
            parts[-1].append(match["uuid"])
    return [some or [uuid] for uuid, some in zip(whole, parts, strict=True)]


def _name(entry: str, groups: list[list[str]]) -> str:
    """Return the UUID that an entry stands for, or the entry where the driver does not list it."""
    if entry.isdigit():
        # Of several parts CUDA takes the first.
        return groups[int(entry)][0] if int(entry) < len(groups) else entry
    # UUIDs may be cut short.
    full = [uuid for group in groups for uuid in group if uuid.startswith(entry)]
    return full[0] if len(full) == 1 else entry


@contextmanager
def _claimed(gpus: list[Gpu]) -> Iterator[Gpu]:
    # Whom a scheduler gave a GPU may use it: only processes of the same job may be in the way.
    scope = os.environ.get("SLURM_JOB_ID", "machine")
    waits = False
    while True:
        for gpu in gpus:
            with socket.socket(socket.AF_UNIX) as claim:
                try:
                    claim.bind(f"\0vitfeat-gpu/{scope}/{gpu.name}")
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    continue
                logger.info(f"GPU {gpu.name}, of {plural(len(gpus), 'GPU')} to choose from")
                yield gpu
                return
        if not waits:
            logger.warning(
                f"other jobs of vitfeat have {plural(len(gpus), 'GPU')} of this machine; waiting"
            )
            waits = True
        time.sleep(_SECONDS_BETWEEN_TRIES)
