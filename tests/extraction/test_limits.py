"""Taps that are kept for some images only: the same numbers, in fewer rows and less memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from tests.extraction.pictures_folder import N_IMAGES, UNANNOTATED, Watch
from tests.store.filled import files
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.errors import ConfigError, StoreError
from vitfeat.extraction.buffers import Unit
from vitfeat.extraction.pipeline import schedule
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.store.limits import Limit, spread
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify

LIMITS: Mapping[str, Limit] = {"attention": 3, "block_input": 7, "attn_branch": 7, "mlp_branch": 21}
EVERY = Settings(taps=UNANNOTATED, batch_size=5, device="cpu", threads=2, workers=0)
SOME = EVERY.but(limits=LIMITS)


class Extract:
    """An extraction of the session's images, with everything but the settings fixed."""

    def __init__(self, backbone: Backbone, index: Index, root: Path) -> None:
        self.backbone, self.index, self.root = backbone, index, root

    def __call__(self, out: Path, settings: Settings = SOME, **options: Any) -> dict[str, Any]:
        return extract(self.backbone, self.index, self.root, out, settings, **options)


@pytest.fixture(scope="module")
def extracting(backbone: Backbone, index: Index, folder: Path) -> Extract:
    return Extract(backbone, index, folder)


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Any:
    """Blocks of eight images, and shards of arrays of some images that end inside blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitfeat.store.layout._MAX_BLOCK", 8)
        yield


@pytest.fixture(scope="module")
def every(
    tmp_path_factory: pytest.TempPathFactory, extracting: Extract, _small_shards: Any
) -> Path:
    out = tmp_path_factory.mktemp("every") / "m.zarr"
    extracting(out, EVERY)
    return out


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, extracting: Extract, _small_shards: Any) -> Path:
    out = tmp_path_factory.mktemp("some") / "m.zarr"
    extracting(out)
    return out


def _same_files(a: Path, b: Path) -> None:
    left, right = files(a), files(b)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


# --- The numbers ---


def _check(found: Path, expected: Path, rows: Mapping[str, list[int]]) -> None:
    """Hold a store to be the rows of one of all images, bit for bit."""
    store, damages = verify(found)
    assert damages == []
    whole = open_store(expected)
    assert store.array_names == whole.array_names
    for name in store.array_names:
        kept = rows.get(name.partition("/")[0], list(range(N_IMAGES)))
        assert store.rows(name).tolist() == kept
        assert np.array_equal(store[name][:], np.asarray(whole[name][:])[kept])


def test_kept_rows_are_those_of_a_store_of_all(some: Path, every: Path) -> None:
    _check(some, every, {t: list(spread(n, N_IMAGES)) for t, n in LIMITS.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("images_at_once", [1, 2, 3])
def test_attention_that_comes_in_pieces(
    extracting: Extract,
    some: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images_at_once: int,
) -> None:
    """As of larger models: a piece may hold some of the kept images of its batch, all or none."""
    per_image = 3 * 21**2 * 4
    monkeypatch.setattr("vitfeat.models.taps._CPU_BYTES", images_at_once * per_image)
    limits: dict[str, Limit] = {"attention": 3, "attention_mean": 9, "attention_summary": 11}
    settings = EVERY.but(taps=("cls", *limits), limits=limits, batch_size=8, threads=1)
    extracting(tmp_path / "m.zarr", settings)
    store, every = open_store(tmp_path / "m.zarr"), open_store(some)
    for name in store.array_names:
        rows = store.rows(name)
        if name != "attention":
            expected = np.asarray(every[name][:])[rows]
        else:
            assert np.array_equal(rows, every.rows(name))
            expected = np.asarray(every[name][:])
        np.testing.assert_allclose(
            np.asarray(store[name][:], np.float64),
            expected.astype(np.float64),
            rtol=2e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize("batch_size", [1, 8, 16, 100])
def test_batches_do_not_change_which_rows_are_kept(
    extracting: Extract, some: Path, tmp_path: Path, batch_size: int
) -> None:
    extracting(tmp_path / "m.zarr", SOME.but(batch_size=batch_size))
    found, expected = open_store(tmp_path / "m.zarr"), open_store(some)
    for name in expected.array_names:
        assert np.array_equal(found.rows(name), expected.rows(name))
        np.testing.assert_allclose(
            np.asarray(found[name][:], np.float64),
            np.asarray(expected[name][:], np.float64),
            rtol=2e-3,
            atol=1e-4,
        )


def test_images_by_name_and_every_kind_of_tap(
    extracting: Extract, every: Path, tmp_path: Path
) -> None:
    ids = extracting.index.image_id
    rows = {
        "cls": [21],
        "registers": [0, 1, 2, 3, 4, 5, 6, 7],
        "spatial": [3, 9],
        "attention_summary": [4, 20],
        "attention_mean": [2, 4, 11],
        "attention": [11],
        "block_input": [8, 15],
        "mlp_branch": [7, 16],
        "residual_norms": [6, 8, 14],
    }
    limits = {tap: [ids[row] for row in reversed(kept)] for tap, kept in rows.items()}
    extracting(tmp_path / "m.zarr", EVERY.but(limits=limits))
    _check(tmp_path / "m.zarr", every, rows)
    recorded = open_store(tmp_path / "m.zarr").attributes["request"]["limits"]
    assert recorded == {tap: [ids[row] for row in kept] for tap, kept in rows.items()}


def test_nothing_but_limited_taps(extracting: Extract, every: Path, tmp_path: Path) -> None:
    extracting(tmp_path / "m.zarr", EVERY.but(taps=("attention",), limits={"attention": 2}))
    store = open_store(tmp_path / "m.zarr")
    assert store.rows("attention").tolist() == [5, 16]
    found, expected = store["attention"][:], open_store(every)["attention"][:][[5, 16]]
    assert np.array_equal(found, expected)


def test_a_limit_that_all_images_are_within_is_none(
    extracting: Extract, every: Path, tmp_path: Path
) -> None:
    limits: dict[str, Limit] = {"attention": N_IMAGES, "cls": 10**6}
    limits["spatial"] = list(extracting.index.image_id)
    extracting(tmp_path / "m.zarr", EVERY.but(limits=limits))
    _same_files(tmp_path / "m.zarr", every)


# --- The same bytes ---


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_byte(
    extracting: Extract, some: Path, tmp_path: Path, threads: int
) -> None:
    extracting(tmp_path / "m.zarr", SOME.but(threads=threads))
    _same_files(tmp_path / "m.zarr", some)


class _Stop(Exception):  # noqa: N818  (what a test raises is no error of anybody's)
    pass


@pytest.mark.parametrize("after", [5, 10, 16, 22])
def test_an_interrupted_extraction_ends_with_the_same_bytes(
    extracting: Extract, some: Path, images: Tensor, tmp_path: Path, after: int
) -> None:
    out, done = tmp_path / "m.zarr", [0]

    def stop(count: int) -> None:
        done[0] += count
        if done[0] >= after:
            raise _Stop

    with pytest.raises(_Stop):
        extracting(out, on_images=stop)
    assert not out.exists()
    markers = [p for p in (partial_path(out) / ".progress").iterdir() if p.name.isdigit()]
    finished = {int(p.name) for p in markers}
    assert len(finished) < 3
    with Watch(extracting.backbone, images) as watch:
        manifest = extracting(out)
    assert watch.rows == [r for r in range(N_IMAGES) if r // 8 not in finished]
    assert manifest["forward_images"] == N_IMAGES
    _same_files(out, some)


def test_a_large_batch_pushes_no_more_than_it_must(
    extracting: Extract, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose units are several blocks: what lies in a unit is found in any case."""
    monkeypatch.setattr(
        "vitfeat.extraction.run.schedule", lambda *args, on_gpu: schedule(*args, on_gpu=True)
    )
    extracting(tmp_path / "m.zarr", SOME.but(batch_size=16))
    found, expected = open_store(tmp_path / "m.zarr"), open_store(some)
    for name in expected.array_names:
        np.testing.assert_allclose(
            np.asarray(found[name][:], np.float64),
            np.asarray(expected[name][:], np.float64),
            rtol=2e-3,
            atol=1e-4,
        )


# --- Memory ---


def test_no_room_is_made_for_what_is_not_kept(
    extracting: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[Unit] = []
    allocate = Unit.allocate

    def noted(*args: Any, **options: Any) -> Unit:
        units.append(allocate(*args, **options))
        return units[-1]

    monkeypatch.setattr(Unit, "allocate", noted)
    extracting(tmp_path / "m.zarr")
    # Rows 3, 11 and 18 lie in blocks of their own; of the seven no block has more than three.
    assert [len(u.arrays["attention"]) for u in units] == [1, 1]
    assert [len(u.arrays["block_input/cls"]) for u in units] == [3, 3]
    assert [len(u.arrays["cls"]) for u in units] == [8, 8]


# --- Other requests ---


def test_a_store_of_all_images_serves(
    extracting: Extract, every: Path, some: Path, images: Tensor
) -> None:
    before = files(every)
    with Watch(extracting.backbone, images) as watch:
        extracting(every, SOME)
    assert watch.rows == []
    assert files(every) == before
    with pytest.raises(StoreError) as info:
        extracting(some, EVERY)
    assert "limits.attention: 3 in the store, nothing asked" in str(info.value)
    with pytest.raises(StoreError, match=r"limits\.attention: 3 in the store, 2 asked"):
        extracting(some, SOME.but(limits={**LIMITS, "attention": 2}))
    # The limit of a tap that is not asked for does not matter.
    extracting(some, EVERY.but(taps=("cls", "attention_summary")))


def test_a_request_without_limits_is_what_it_was(every: Path, some: Path) -> None:
    assert "limits" not in open_store(every).attributes["request"]
    assert open_store(every).attributes["request"]["summaries"] == 2
    assert open_store(some).attributes["request"]["limits"] == LIMITS


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"attention": ["class0/000.pgn"]}, "no image 'class0/000.pgn' (did you mean 'class0/"),
        ({"attention": 0}, "limit of the tap attention: found 0"),
        ({"atention": 3}, "not asked for (did you mean 'attention'?); asked are cls, attention"),
    ],
)
def test_limits_that_cannot_be(
    extracting: Extract, tmp_path: Path, limits: dict[str, Limit], words: str
) -> None:
    with pytest.raises(ConfigError) as info:
        extracting(tmp_path / "m.zarr", EVERY.but(taps=("cls", "attention"), limits=limits))
    assert words in str(info.value)
    assert "\n" not in str(info.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_come_is_said(
    extracting: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extracting(tmp_path / "m.zarr", SOME.but(taps=("cls", *LIMITS)))
    assert any(
        "attention (of 3 images), block_input (of 7 images)" in line for line in caplog.messages
    )


def test_the_disk_must_hold_what_is_kept_twice(
    extracting: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the blocks until they are all there, and in shards: both reach over the blocks."""
    settings = EVERY.but(taps=("cls", "spatial"), limits={"spatial": 21})
    sizes = {"cls": N_IMAGES * 2 * 48 * 2, "spatial": 21 * 2 * 16 * 48 * 2}
    usage = type("usage", (), {"free": 2 * sum(sizes.values()) - 1})
    monkeypatch.setattr("vitfeat.extraction.run.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match="make room"):
        extracting(tmp_path / "m.zarr", settings)
    usage.free += 1  # type: ignore[attr-defined]
    extracting(tmp_path / "m.zarr", settings)


# --- The command ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "--limits: not JSON"),
        ("[1]", "--limits: found [1] (a list); allowed: a mapping"),
        (
            '{"cls": true}',
            "--limits.cls: found True (true or false); allowed: a whole",
        ),
        ('{"cls": 1.5}', "--limits.cls: found 1.5"),
        ('{"cls": [1]}', "--limits.cls.0: found 1 (a whole number); allowed: a text"),
        ('{"spatail": 2}', "limit of the tap spatail: the tap is not asked for (did you mean"),
    ],
)
def test_the_command_names_bad_limits(
    index: Index,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    words: str,
) -> None:
    index.write(tmp_path / "index.csv")
    entry = json.dumps({"source": "timm", "name": "test_vit", "normalisation": "half"})
    arguments = ["extract", "m", "--entry", entry, "--index", str(tmp_path / "index.csv")]
    arguments += ["--root", str(folder), "--out", str(tmp_path / "m.zarr"), "--limits", text]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    assert not (tmp_path / "m.zarr").exists()


def test_the_command_limits_taps(index: Index, folder: Path, tmp_path: Path) -> None:
    index.write(tmp_path / "index.csv")
    entry = json.dumps({"source": "timm", "name": "test_vit", "normalisation": "half"})
    arguments = ["extract", "m", "--entry", entry, "--index", str(tmp_path / "index.csv")]
    arguments += ["--root", str(folder), "--out", str(tmp_path / "m.zarr"), "--layers", "last"]
    arguments += ["--taps", "cls", "mlp_branch", "--workers", "0"]
    limits = json.dumps({"mlp_branch": [index.image_id[4], index.image_id[1]], "cls": 2})
    assert main([*arguments, "--limits", limits]) == 0
    store = open_store(tmp_path / "m.zarr")
    assert store.rows("mlp_branch/spatial").tolist() == [1, 4]
    assert store.rows("cls").tolist() == [5, 16]
