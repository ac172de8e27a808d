"""kill -9 of the process that makes a store, anywhere: it is resumed, and nothing stays behind.

Processes are forked from one that has imported everything, and killed by themselves before a call
that changes names, or from outside at any moment.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.counts import times
from tests.store.filled import Content, files
from vitfeat.errors import StoreError
from vitfeat.files import replacing
from vitfeat.store.opening import open_store
from vitfeat.store.paths import finish_setting_aside, manifest_path, partial_path, set_aside
from vitfeat.store.progress import Progress
from vitfeat.store.writer import manifest, remove_leftovers, write_manifest

# A shard of two blocks and one of a short one; a tap of some images; one that is set aside.
CONTENT = Content(taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)})
OTHER = Content(taps=("cls",), span=16, seed=1)
KEPT = ("cls", "attention")

#: Before every so many of the calls that change names.
EVERY = times(6, 1)
MOMENTS = times(10, 60)

CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "symlink")


def make(path: Path, *, replace: bool, keep: tuple[str, ...] | None) -> list[int]:
    """Make a store as an extraction does, which may have been killed before; tell what was made."""
    finish_setting_aside(path, CONTENT.taps)
    try:
        found = open_store(path, check_manifest=False)
        is_done = found.attributes["request"] == CONTENT.request
    except StoreError:
        is_done = False
    if is_done:
        remove_leftovers(path)
        missing, sealed = [], manifest(path, found.attributes)
    else:
        missing, made = CONTENT.write(path, replacing=replace)
        assert made is not None
        sealed = made
    if keep is not None:
        set_aside(path, keep)
    write_manifest(path, sealed)
    return missing


def _die_before(number: int, path: Path, options: dict[str, Any], count: Any) -> None:
    """Make a store in this process, which ends as by kill -9 before one of the calls."""
    n = 0

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def die_first(*arguments: Any, **more: Any) -> Any:
            nonlocal n
            if n == number:
                os.kill(os.getpid(), signal.SIGKILL)
            n += 1
            return call(*arguments, **more)

        return die_first

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    make(path, **options)
    count.value = n


@pytest.fixture(scope="module")
def fork() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.test_kills"])
    return context


@pytest.fixture(
    scope="module",
    params=[
        {"replace": False, "keep": None},
        {"replace": True, "keep": None},
        {"replace": True, "keep": KEPT},
    ],
    ids=["new", "replacing", "set aside"],
)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make(folder / "m.zarr", **options)
    return folder


def _begin(folder: Path, options: dict[str, Any]) -> Path:
    folder.mkdir()
    if options["replace"]:
        OTHER.write(folder / "m.zarr")
    return folder / "m.zarr"


def _holds_after(path: Path, options: dict[str, Any], whole: Path) -> None:
    """Make it again, and hold it against one that was never interrupted."""
    there = partial_path(path)
    progress = Progress(there, CONTENT.layout)
    done = [b for b in range(3) if there.exists() and progress.read_marker(b) is not None]
    # From the move to its place on all of it is there, whatever the links.
    is_sealed = (path / "attention").exists()
    missing = make(path, **options)
    assert not set(done) & set(missing), "blocks that were there are pushed again"
    assert not (is_sealed and missing), "what was finished is pushed again"
    assert files(path.parent) == files(whole)
    assert np.array_equal(open_store(path)["cls"][:], CONTENT.arrays()["cls"])


def test_before_every_call_that_changes_names(
    fork: Any, options: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    count = fork.Value("i", -1)
    for number in range(0, 10_000, EVERY):
        path = _begin(tmp_path / str(number), options)
        killed: ForkServerProcess = fork.Process(
            target=_die_before, args=(number, path, options, count)
        )
        killed.start()
        killed.join()
        if killed.exitcode == 0:
            break
        assert killed.exitcode == -signal.SIGKILL
        _holds_after(path, options, whole)
    assert number >= count.value > 80


def test_at_any_moment(fork: Any, options: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    choose = random.Random(0)
    started = time.monotonic()
    count = fork.Value("i", -1)
    path = _begin(tmp_path / "first", options)
    first = fork.Process(target=_die_before, args=(-1, path, options, count))
    first.start()
    first.join()
    longest = time.monotonic() - started
    for number in range(MOMENTS):
        path = _begin(tmp_path / str(number), options)
        killed = fork.Process(target=_die_before, args=(-1, path, options, count))
        killed.start()
        # Once it has begun: the start of a process is of no interest.
        while killed.is_alive() and not any(path.parent.glob(".m.zarr.*")):
            time.sleep(0.001)
        time.sleep(choose.random() * longest / 2)
        killed.kill()
        killed.join()
        _holds_after(path, options, whole)


# --- Files of one name ---


def _die_writing(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_one(
    fork: Any, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    for _ in range(2):
        killed = fork.Process(target=_die_writing, args=(path,))
        killed.start()
        killed.join()
    assert path.read_bytes() == b"old"
    assert len([*tmp_path.iterdir()]) == 2
    other = tmp_path / f".table.csv.{os.uname().nodename}.1.partial"
    other.write_bytes(b"of a process that runs")
    with replacing(path) as partial:
        partial.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert sorted(tmp_path.iterdir()) == [other, path]


@pytest.fixture(autouse=True)
def _no_manifest_of_another(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.glob("*/m.zarr"):
        assert manifest_path(path).is_file()
