"""Power cuts on a real ext4: its image copied in mid-run, mounted again, and run on.

Where the tests may not mount anything they are skipped, and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.counts import times
from tests.faults.crashes import CALLS
from tests.faults.test_power_cuts import CONTENT, OTHER
from tests.store.filled import Content, files
from vitfeat import files as vitfeat_files
from vitfeat.errors import StoreError
from vitfeat.store.verify import verify

COPIES = times(24, 100)


def _run(*command: str | Path) -> str:
    """Run a command; return what it complains of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} failed"


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    if complaint := _run("mount", "-o", "loop", image, at):
        pytest.skip(f"needs a user who may mount an ext4 image: {complaint}")
    try:
        yield at
    finally:
        assert not _run("umount", at)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(24 * 2**20)
    if complaint := _run("mkfs.ext4", "-q", "-F", path):
        pytest.skip(f"needs mkfs.ext4: {complaint}")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    CONTENT.write(path)
    return path


def _watched(before: Callable[[], None]) -> pytest.MonkeyPatch:
    """Have something done before every call that changes names or syncs."""
    patch = pytest.MonkeyPatch()

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def look_first(*arguments: Any, **options: Any) -> Any:
            before()
            return call(*arguments, **options)

        return look_first

    for name in CALLS:
        patch.setattr(os, name, watched(getattr(os, name)))
    # One after the other, so that there are as many calls every time.
    patch.setattr(vitfeat_files, "_SYNCED_AT_ONCE", 1)
    return patch


def _copies(image: Path, at: Path, folder: Path) -> list[Path]:
    """Copy the disk at moments all over the run in which one store replaces another."""
    n_calls = 0

    def count() -> None:
        nonlocal n_calls
        n_calls += 1

    OTHER.write(folder / "m.zarr")
    patch = _watched(count)
    CONTENT.write(folder / "m.zarr", replacing=True)
    patch.undo()

    copies: list[Path] = []
    moments = {round(i) for i in np.linspace(1, n_calls, COPIES)}
    fsync, n_before = os.fsync, 0

    def look() -> None:
        nonlocal n_before
        n_before += 1
        if n_before not in moments:
            return
        if len(copies) % 2:
            # The journal gets all names, and no other file's bytes: as another program's sync does.
            with (at / "other").open("wb") as file:
                file.write(b"%d" % n_before)
                file.flush()
                fsync(file.fileno())
        copies.append(image.with_name(f"{len(copies)}.img"))
        shutil.copyfile(image, copies[-1])

    with _mounted(image, at):
        OTHER.write(at / "m.zarr")
        os.sync()
        patch = _watched(look)
        try:
            CONTENT.write(at / "m.zarr", replacing=True)
        finally:
            patch.undo()
    return copies


def _found(path: Path) -> Content | None:
    """Return which store stands there whole; None says that there is none."""
    try:
        store, damages = verify(path)
    except StoreError:
        return None
    assert damages == []
    held = CONTENT if store.attributes["request"] == CONTENT.request else OTHER
    for name, values in held.arrays().items():
        assert np.array_equal(store[name][:], values), name
    return held


def test_every_copy_of_the_disk_holds_a_whole_store_or_one_to_resume(
    image: Path, whole: Path, tmp_path: Path
) -> None:
    at = tmp_path / "at"
    copies = _copies(image, at, tmp_path)
    assert len(copies) >= min(COPIES, 20)
    for copy in copies:
        with _mounted(copy, at):
            if _found(at / "m.zarr") is not CONTENT:
                CONTENT.write(at / "m.zarr", replacing=True)
                assert files(at / "m.zarr") == files(whole)
            assert _found(at / "m.zarr") is CONTENT


def test_without_syncing_a_copy_of_the_disk_has_lost_files(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test would see it."""
    monkeypatch.setattr(vitfeat_files, "_sync", lambda _: None)
    at = tmp_path / "at"
    empty = 0
    for copy in _copies(image, at, tmp_path):
        with _mounted(copy, at):
            empty += any(not content for content in files(at).values())
    assert empty > 0
