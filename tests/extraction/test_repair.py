"""`vitfeat repair`: only what is damaged is pushed again, and the store has the bytes it had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.extraction.pictures_folder import ALL, N_IMAGES
from tests.store.filled import files, flip
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.errors import StoreError
from vitfeat.extraction.run import extract
from vitfeat.models.backbone import Backbone
from vitfeat.store.opening import open_store
from vitfeat.store.paths import manifest_path

ENTRY = {"source": "timm", "name": "test_vit", "normalisation": "half"}


def _repair(backbone: Backbone, index: Index, folder: Path, store: Path) -> int:
    """Repair a store, and return how many images were pushed."""
    said: list[int] = []
    extract(backbone, index, folder, store, ALL.but(repair=True), on_images=said.append)
    return sum(said[1:])


@pytest.mark.parametrize(
    ("file", "n_pushed"),
    [
        ("zarr.json", 0),
        ("label/c.0", 0),
        ("seal/shards/c.0.0", 0),
        ("attention_mean/zarr.json", 0),
        # A chunk is of one block; a shard that is gone was of all.
        ("cls/c.0.0.0", 8),
    ],
)
def test_only_blocks_that_are_damaged_are_pushed_again(
    whole: Path,
    backbone: Backbone,
    index: Index,
    folder: Path,
    tmp_path: Path,
    file: str,
    n_pushed: int,
) -> None:
    store = tmp_path / "m.zarr"
    shutil.copytree(whole, store)
    assert _repair(backbone, index, folder, store) == 0
    flip(store / file, 40)
    assert _repair(backbone, index, folder, store) == n_pushed
    assert files(store) == files(whole)
    (store / file).unlink()
    assert _repair(backbone, index, folder, store) == (n_pushed and N_IMAGES)
    assert files(store) == files(whole)


def test_a_store_from_other_settings_is_not_repaired(
    whole: Path, backbone: Backbone, index: Index, folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "m.zarr"
    shutil.copytree(whole, store)
    with pytest.raises(StoreError, match="a store from other settings stands there"):
        extract(
            backbone, index, folder, store, ALL.but(repair=True, dtype="float32", taps=("cls",))
        )
    assert files(store) == files(whole)


@pytest.fixture
def store(index: Index, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store where a workflow has it, and a config that names its images."""
    monkeypatch.chdir(tmp_path)
    index.write(Path("results/datasets/photos.csv"))
    config = {
        "models": ["m"],
        "catalog": {"m": ENTRY},
        "datasets": {"photos": {"layout": "folder", "root": str(folder)}},
        "analyses": {"clustering": {"datasets": ["photos"]}},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    store = Path("results/features/photos/m.zarr")
    command = ["extract", "m", "--entry", json.dumps(ENTRY), "--root", str(folder)]
    command += ["--index", "results/datasets/photos.csv", "--out", str(store)]
    limits = '{"attention": 3}'
    command += ["--taps", "cls", "spatial", "attention", "--layers", "0", "-1", "--limits", limits]
    command += ["--view", '{"kind": "padded"}', "--device", "cpu", "--workers", "0"]
    assert main(command) == 0
    return store


def _run(store: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["repair", str(store), "--device", "cpu", "--workers", "0", *more])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_finds_what_it_needs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, manifest = files(store), manifest_path(store)
    date = manifest.stat().st_mtime_ns
    flip(store / "spatial" / "c.0.0.0.0.0", 200)
    status, out, err = _run(store, capsys)
    assert (status, out) == (0, f"{store}: whole, {N_IMAGES} images\n")
    assert f"{store}: damaged at spatial, shard 0: cannot be decoded" in err
    assert "repairing the store: 1 of 3 blocks to do" in err
    assert files(store) == expected
    # Nothing that was made of it is made anew.
    assert manifest.stat().st_mtime_ns == date
    assert _run(store, capsys)[0] == 0


def test_the_command_without_a_config(
    store: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = files(store)
    Path("config.yaml").unlink()
    (store / "cls" / "c.0.0.0").unlink()
    status, _, err = _run(store, capsys, "--entry", json.dumps(ENTRY))
    assert status == 1
    assert "--root: say where the images of photos are" in err
    status, _, _ = _run(store, capsys, "--entry", json.dumps(ENTRY), "--root", str(folder))
    assert status == 0
    assert files(store) == expected


def test_of_some_images_and_arrays_that_are_set_aside(
    store: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = Path("results/features/photos/chosen.zarr")
    command = ["extract", "m", "--entry", json.dumps(ENTRY), "--root", str(folder), "--images", "9"]
    command += ["--index", "results/datasets/photos.csv", "--out", str(chosen), "--keep", "cls"]
    assert main([*command, "--device", "cpu", "--workers", "0"]) == 0
    expected = files(chosen)
    aside = files(Path("results/features/photos/chosen.transient"))
    flip(chosen / "cls" / "c.0.0.0", 100)
    assert _run(chosen, capsys)[0] == 0
    assert files(chosen) == expected
    assert files(Path("results/features/photos/chosen.transient")) == aside
    assert (chosen / "spatial").is_symlink()
    assert not open_store(chosen).dropped


def test_what_cannot_be_repaired_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "only a store on a disk is repaired" in _run(Path("s3://bucket/m.zarr"), capsys)[2]
    assert "no such store" in _run(Path("results/features/photos/none.zarr"), capsys)[2]
    (store / "zarr.json").write_text("{")
    status, _, err = _run(store, capsys)
    assert status == 1
    assert "not a feature store of vitfeat" in err
