"""What a power cut leaves is resumed or done again, never taken for whole."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.crashes import Recorder
from tests.store.filled import Content, files
from vitfeat import files as vitfeat_files
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store
from vitfeat.store.verify import verify

# A shard of two blocks and one of a short one; and a tap of some images.
CONTENT = Content(taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)})
OTHER = Content(taps=("cls",), span=16, seed=1)

#: `VITFEAT_POWER_CUTS=50` asks for more.
CUTS = int(os.environ.get("VITFEAT_POWER_CUTS", "12"))


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
