"""What a power cut leaves is resumed or done again, never taken for whole."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.counts import times
from tests.faults.crashes import Moment, Recorder
from tests.store.filled import Content, files
from vitfeat import files as vitfeat_files
from vitfeat.errors import StoreError
from vitfeat.store import paths
from vitfeat.store.opening import open_store
from vitfeat.store.paths import set_aside
from vitfeat.store.verify import verify

# A shard of two blocks and one of a short one; and a tap of some images.
CONTENT = Content(taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)})
OTHER = Content(taps=("cls",), span=16, seed=1)

CUTS = times(12, 50)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    CONTENT.write(path)
    return path


def _recorded(folder: Path, *, replacing: bool) -> Recorder:
    folder.mkdir()
    recorder = Recorder(folder)
    with pytest.MonkeyPatch.context() as patch:
        # One after the other, so that the order of calls is that of the code.
        patch.setattr(vitfeat_files, "_SYNCED_AT_ONCE", 1)
        recorder.watch(patch)
        if replacing:
            OTHER.write(folder / "m.zarr")
        begun = len(recorder.moments)
        CONTENT.write(folder / "m.zarr", replacing=replacing)
        recorder._look()
    # What was there before must be there throughout.
    recorder.moments = recorder.moments[begun:]
    return recorder


@pytest.fixture(scope="module", params=[False, True], ids=["new", "replacing"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    folder = tmp_path_factory.mktemp("recorded") / "features"
    return _recorded(folder, replacing=request.param)


@pytest.mark.parametrize("seed", range(CUTS))
def test_a_store_after_a_power_cut_is_whole_or_resumed(
    recorded: Recorder, whole: Path, tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed)
    recorded_moment = choose.choice(recorded.moments)
    recorded_moment.after_power_cut(tmp_path / "features", choose)
    path = tmp_path / "features" / "m.zarr"
    found: Any = None
    try:
        found, damages = verify(path)
    except StoreError:
        pass
    else:
        # What opens is whole: the new one or the one before.
        assert damages == []
        made = CONTENT if found.attributes["request"] == CONTENT.request else OTHER
        for name, values in made.arrays().items():
            assert np.array_equal(found[name][:], values), name
    if found is None or found.attributes["request"] != CONTENT.request:
        CONTENT.write(path, replacing=True)
        assert files(path) == files(whole)
    assert open_store(path).attributes["request"] == CONTENT.request
    assert verify(path)[1] == []


def test_the_moments_are_many_and_some_lose_something(recorded: Recorder) -> None:
    assert len(recorded.moments) > 100
    unsafe = [m for m in recorded.moments if m.content.keys() - m.synced_content.keys()]
    assert len(unsafe) > 20


def test_a_finished_store_cannot_be_taken_back(
    recorded: Recorder, whole: Path, tmp_path: Path
) -> None:
    """Nothing of it is left to be synced when the extraction has ended."""
    for seed in range(5):
        folder = tmp_path / str(seed)
        recorded.moments[-1].after_power_cut(folder, random.Random(seed))
        # Of what it no longer needs some may still be there.
        found = {n: v for n, v in files(folder / "m.zarr").items() if not n.startswith(".progress")}
        assert found == files(whole)


def test_without_syncing_stores_would_be_lost(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test would see it."""
    monkeypatch.setattr(vitfeat_files, "_sync", lambda _: None)
    recorder = _recorded(tmp_path / "recorded", replacing=False)
    lost = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        recorder.moments[-1].after_power_cut(folder, random.Random(seed))
        path = folder / "m.zarr"
        lost += not path.exists() or files(path) != files(whole)
    assert lost > 0


# --- Arrays that are set aside ---

KEPT = ("cls",)


@pytest.fixture(scope="module")
def set_aside_moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    return _set_aside(tmp_path_factory.mktemp("recorded") / "features")


def _set_aside(folder: Path) -> list[Moment]:
    """Record how the arrays of a finished store are set aside."""
    recorder = _recorded(folder, replacing=False)
    begun = len(recorder.moments) - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vitfeat_files, "_SYNCED_AT_ONCE", 1)
        recorder.watch(patch)
        set_aside(folder / "m.zarr", KEPT)
        recorder._look()
    return recorder.moments[begun:]


def _has_all(path: Path) -> bool:
    """Return whether a store opens with all its arrays, and nothing is said to be used."""
    try:
        found, damages = verify(path)
    except StoreError:
        return False
    assert damages == []
    return not found.dropped


def test_what_was_set_aside_is_there_after_a_power_cut(
    set_aside_moments: list[Moment], tmp_path: Path
) -> None:
    for seed in range(CUTS):
        folder = tmp_path / str(seed)
        set_aside_moments[-1].after_power_cut(folder, random.Random(seed))
        assert _has_all(folder / "m.zarr")
        assert sorted(p.name for p in (folder / "m.zarr").iterdir() if p.is_symlink()) == [
            "attention",
            "spatial",
        ]


def test_a_power_cut_while_arrays_are_set_aside_makes_none_that_was_used(
    set_aside_moments: list[Moment], tmp_path: Path
) -> None:
    choose = random.Random(0)
    for number, moment in enumerate(set_aside_moments):
        path = tmp_path / str(number) / "m.zarr"
        moment.after_power_cut(path.parent, choose)
        if not _has_all(path):
            with pytest.raises(StoreError, match="is missing"):
                open_store(path)
            # As the workflow does it.
            CONTENT.write(path, replacing=True)
        set_aside(path, KEPT)
        assert _has_all(path)


def test_without_syncing_arrays_that_are_set_aside_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the tests would see it."""
    monkeypatch.setattr(paths, "sync", lambda _: None)
    last = _set_aside(tmp_path / "recorded")[-1]
    lost = 0
    for seed in range(20):
        last.after_power_cut(tmp_path / str(seed), random.Random(seed))
        lost += not _has_all(tmp_path / str(seed) / "m.zarr")
    assert lost > 0
