"""Small disks, for those who may mount them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_tmpfs(at: Path, size: str) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """Mount a disk of a size in memory; give it, and what mounts it anew with other options."""
    at.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", at],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"needs a user who may mount a tmpfs: {done.stderr.strip()}")

    mount(f"size={size}")
    try:
        yield at, lambda options: mount(f"remount,{options}")
    finally:
        # Numbers that were mapped may still be held by an error.
        subprocess.run(["umount", "--lazy", at], check=True)
