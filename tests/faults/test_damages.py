"""Damage anywhere in any file: told in one line and mended, or done again; never other numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import MakeFile
from tests.faults.counts import times
from tests.store.filled import Content, copied, files
from tests.store.test_ragged_store import RAGGED
from vitfeat.analyses.cka.compute import cka
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.numerics.gramfile import GramFile
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify

# Shards of several blocks and of one; of some images; dense, with regions.
CONTENTS = {
    "gathered": Content(
        taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)}
    ),
    "summaries": Content(taps=("cls", "attention_summary", "residual_norms")),
    "dense": RAGGED,
}
SEALED, UNFINISHED, GRAMS = times(10, 150), times(10, 120), times(60, 200)


def _damage(path: Path, others: list[Path], choose: random.Random) -> str:
    """Do something to a file, and say what."""
    content = bytearray(path.read_bytes())
    place = choose.randrange(max(1, len(content)))
    stop = place + choose.randrange(1, 5000)
    what = choose.choice(["bit", "bit", "bits", "zeros", "noise", "cut", "more", "other", "absent"])
    if what == "bit":
        content[place : place + 1] = bytes(
            b ^ 1 << choose.randrange(8) for b in content[place:][:1]
        )
    elif what == "bits":
        for _ in range(5):
            content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    elif what == "zeros":
        content[place:stop] = bytes(len(content[place:stop]))
    elif what == "noise":
        content[place:stop] = choose.randbytes(len(content[place:stop]))
    elif what == "cut":
        del content[place:]
    elif what == "more":
        content += choose.randbytes(choose.randrange(1, 100))
    elif what == "other":
        content[:] = choose.choice(others).read_bytes()
    path.write_bytes(content)
    if what == "absent":
        path.unlink()
    return f"{what} at {place} of {path}"


def _chosen(folder: Path, choose: random.Random) -> tuple[Path, list[Path]]:
    """Return a file, metadata as often as shards, and all files."""
    every = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".claim")
    kinds = [[p for p in every if (p.name[:2] == "c.") is shard] for shard in (True, False)]
    some = choose.choice([kind for kind in kinds if kind])
    return choose.choice([p for p in some if p.stat().st_size]), every


@pytest.fixture(scope="module", params=CONTENTS)
def content(request: pytest.FixtureRequest) -> Content:
    return CONTENTS[request.param]


@pytest.fixture(scope="module")
def whole(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    content.write(path)
    return path


def _is_told(path: Path, content: Content) -> bool:
    """Read all of a store; where nothing is told, hold it against what was written."""
    told = ""
    try:
        store, damages = verify(path)
    except StoreError as error:
        told = str(error)
    if told:
        assert "\n" not in told
        assert str(path) in told
        return True
    if damages:
        return True
    assert store.image_ids == list(content.rows.image_id)
    assert store.labels.tolist() == content.rows.label.tolist()
    assert store.attributes["request"] == content.request
    for name, values in content.arrays().items():
        assert np.array_equal(store[name][:], values), name
    return False


def test_of_a_sealed_store(whole: Path, content: Content, tmp_path: Path) -> None:
    """All of it is told, but white space in JSON, and repaired to the same bytes."""
    expected = files(whole)
    for seed in range(SEALED):
        choose = random.Random(seed)
        path = copied(whole, tmp_path / str(seed) / "m.zarr")
        what = _damage(*_chosen(path, choose), choose)
        told = _is_told(path, content)
        assert told or files(path) == expected or "m.zarr/zarr.json" in what, what
        if told:
            missing, _ = content.write(path, replacing=True)
            # Metadata and coordinates cost no block, a shard those that have some of it.
            assert bool(missing) == ("/c." in what and _is_feature(what, content)), what
            assert files(path) == expected, what
            assert verify(path)[1] == []


def _is_feature(what: str, content: Content) -> bool:
    return any(f"m.zarr/{array.name}/c." in what for array in content.layout.arrays)


@pytest.mark.parametrize("blocks", [[2, 0], [0, 1, 2]], ids=["some blocks", "all blocks"])
def test_of_an_unfinished_store(
    whole: Path, content: Content, tmp_path: Path, blocks: list[int]
) -> None:
    """It is done again, or, in a shard that nobody reads any more before the seal, told."""
    expected = files(whole)
    for seed in range(UNFINISHED // 2):
        choose = random.Random(seed)
        path = tmp_path / str(seed) / "m.zarr"
        content.write(path, blocks, seal=False)
        what = _damage(*_chosen(partial_path(path), choose), choose)
        content.write(path, replacing=True)
        if files(path) != expected:
            assert blocks == [0, 1, 2], what
            assert _is_feature(what.replace(".partial", ""), content), what
            assert len(verify(path)[1]) == 1, what
            content.write(path, replacing=True)
            assert files(path) == expected, what


def test_of_gram_files(
    make_file: MakeFile, features: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    given = [features(30, 6) for _ in range(3)]
    sound, other = make_file(given, "a"), make_file([features(30, 4) for _ in range(3)], "b")
    expected = cka(sound, sound, estimator="debiased")
    for seed in range(GRAMS):
        choose = random.Random(seed)
        path = tmp_path / f"{seed}.safetensors"
        path.write_bytes(sound.path.read_bytes())
        what = _damage(path, [path], choose)
        told = ""
        try:
            found = GramFile(path)
            values = cka(found, found, estimator="debiased")
        except AnalysisError as error:
            told = str(error)
        if told:
            assert str(path) in told
            assert "\n" not in told
        else:
            assert path.read_bytes() == sound.path.read_bytes(), what
            assert np.array_equal(values, expected)
    # Of another model it says so itself.
    assert GramFile(other.path).meta.model == "b"


def test_one_row_of_a_gram_file_is_told_by_who_reads_it(
    make_file: MakeFile, features: Callable[..., np.ndarray]
) -> None:
    file = make_file([features(30, 6) for _ in range(3)])
    content = bytearray(file.path.read_bytes())
    content[-5] ^= 1  # the last row of the last layer
    file.path.write_bytes(content)
    found = GramFile(file.path)
    assert found.gram(1).n_images == 30
    assert found.block(0, 29).shape == (3, 29, 30)
    for read in (lambda: found.gram(2), lambda: found.block(29, 30)):
        with pytest.raises(AnalysisError, match=r"is damaged \(the checksum of a row is wrong\)"):
            read()


def test_shards_of_another_request_are_not_taken_over(tmp_path: Path) -> None:
    """Where a store of other settings is replaced, and shards have the same shape."""
    path = tmp_path / "m.zarr"
    Content(taps=("cls",), seed=1).write(path)
    new = Content(taps=("cls",), seed=2)
    assert new.write(path, replacing=True)[0] == [0, 1, 2]
    assert np.array_equal(open_store(path)["cls"][:], new.arrays()["cls"])


def test_numbers_of_another_machine_are_not_taken_over(tmp_path: Path) -> None:
    """A shard of the same request and place that is another than the seal says."""

    class OtherNumbers(Content):
        @property
        def request(self) -> dict[str, object]:
            return Content(taps=("cls",)).request

    path, made = tmp_path / "m.zarr", Content(taps=("cls",))
    made.write(path)
    whole = files(path)
    OtherNumbers(taps=("cls",), seed=1).write(tmp_path / "n.zarr")
    (path / "cls" / "c.1.0.0").write_bytes((tmp_path / "n.zarr" / "cls" / "c.1.0.0").read_bytes())
    assert [d.shard for d in verify(path)[1]] == [1]
    assert made.write(path, replacing=True)[0] == [1]
    assert files(path) == whole
