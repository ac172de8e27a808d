"""What bad input gets: one line, exit status 1, and nothing that looks finished left behind.

Each test runs the command that a rule or a user would run, on the input that is wrong.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vitfeat
from tests.store.filled import flip, shard_of
from vitfeat.cli import main
from vitfeat.console import ERRORS_FROM_LOGS
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.store import writer

# Large enough to be a ViT, small enough to run in milliseconds.
TINY = {
    "source": "timm",
    "name": "vit_tiny_patch16_224",
    "image_size": 32,
    "args": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    "normalisation": "half",
}


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail, and return its one line."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("vitfeat: error: ")]
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        return errors[0]

    return run


def index(photos: Path, *more: str | Path) -> Path:
    """Index a folder and return the index's path; the command must succeed."""
    out = photos.parent / "index.csv"
    arguments = ["index", "photos", "--layout", "folder", "--root", photos, "--out", out, *more]
    assert main([str(a) for a in arguments]) == 0
    return out


def extract(photos: Path, *more: str | Path, **entry: Any) -> list[str | Path]:
    """Return the command that extracts an indexed folder."""
    return [
        "extract",
        "tiny",
        *("--entry", json.dumps({**TINY, **entry})),
        *("--index", photos.parent / "index.csv"),
        *("--root", photos),
        *("--out", photos.parent / "tiny.zarr"),
        *("--device", "cpu"),
        *("--threads", "1"),
        *more,
    ]


def run(arguments: list[str | Path]) -> int:
    return main([str(a) for a in arguments])


def index_command(root: Path, out: Path, layout: str = "folder") -> list[str | Path]:
    return ["index", "photos", "--layout", layout, "--root", root, "--out", out]


def test_no_such_folder(tmp_path: Path, fails: Callable[..., str]) -> None:
    out = tmp_path / "index.csv"
    line = fails(*index_command(tmp_path / "nowhere", out))
    assert "nowhere" in line
    assert "does not exist" in line
    assert not out.exists()


def test_a_folder_without_images(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    line = fails(*index_command(tmp_path / "photos", tmp_path / "index.csv", "flat"))
    assert "photos" in line
    assert "no images" in line
    assert not (tmp_path / "index.csv").exists()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_image(path: Path) -> None:
    path.write_text("this is no image")


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def hundred_megapixels(path: Path) -> None:
    Image.new("1", (12_500, 8_000)).save(path)


BROKEN = [truncated, empty, no_image, one_pixel, hundred_megapixels]


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_broken_image_stops_and_is_named(
    photos: Path, fails: Callable[..., str], spoil: Callable[[Path], None]
) -> None:
    spoil(photos / "dog" / "e.png")
    out = photos.parent / "index.csv"
    if spoil is truncated:
        # Its header is right: only decoding shows it, and the extraction decodes.
        index(photos)
        line = fails(*extract(photos))
        assert not (photos.parent / "tiny.zarr").exists()
        assert not (photos.parent / "tiny.json").exists()
    else:
        line = fails(*index_command(photos, out))
        assert not out.exists()
    assert "dog/e.png" in line


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_broken_image_is_skipped_and_recorded(
    photos: Path, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    spoil(photos / "dog" / "e.png")
    log = tmp_path / "index.log"
    index(photos, "--on-error", "skip", "--log", log)
    assert "dog/e.png" in log.read_text()
    assert run(extract(photos)) == 0
    store = vitfeat.open(photos.parent / "tiny.zarr")
    assert store.image_ids == ["cat/a.png", "cat/b.png", "cat/c.png", "dog/d.png", "dog/f.png"]
    assert store["cls"].shape[0] == 5
    assert [name for name, _ in store.attributes["skipped"]] == ["dog/e.png"]


def test_two_files_of_one_name(photos: Path, fails: Callable[..., str]) -> None:
    Image.new("RGB", (40, 40)).save(photos / "cat" / "a.jpg")
    line = fails(*index_command(photos, photos.parent / "index.csv"))
    assert "a.jpg" in line
    assert "a.png" in line


def test_an_image_listed_twice(photos: Path, fails: Callable[..., str]) -> None:
    names = photos.parent / "names.txt"
    names.write_text("cat/a.png\ncat/b.png\ncat/a.png\n")
    command = index_command(photos, photos.parent / "index.csv", "list")
    assert "cat/a.png" in fails(*command, "--list", names)


def test_an_image_that_changed_since_it_was_indexed(
    photos: Path, fails: Callable[..., str]
) -> None:
    index(photos)
    Image.new("RGB", (40, 48), "red").save(photos / "cat" / "b.png")
    line = fails(*extract(photos))
    assert "cat/b.png" in line
    assert "changed" in line


def test_a_checkpoint_that_does_not_fit(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    entry = ModelEntry.from_mapping("tiny", TINY)
    state = load_backbone(entry).module.state_dict()
    state["blocks.7.extra"] = torch.zeros(1)
    del state["blocks.1.attn.qkv.weight"]
    weights = photos.parent / "other.safetensors"
    save_file(state, weights)
    line = fails(*extract(photos, checkpoint=str(weights)))
    assert "missing (blocks.1.attn.qkv.weight)" in line
    assert "unexpected (blocks.7.extra)" in line
    assert not (photos.parent / "tiny.zarr").exists()


def test_a_checkpoint_of_which_nobody_tells_the_normalisation(
    photos: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 8: the library's default used to be taken without a word; what is taken is said twice."""
    index(photos)
    weights = photos.parent / "own.safetensors"
    save_file(load_backbone(ModelEntry.from_mapping("tiny", TINY)).module.state_dict(), weights)
    asked = {"checkpoint": str(weights), "normalisation": None}
    assert "set catalog.tiny.normalisation to" in fails(*extract(photos, **asked))
    assert not (photos.parent / "tiny.zarr").exists()
    assert run(extract(photos, **asked, family="dino")) == 0
    told = "mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225; told by the family dino"
    found = capsys.readouterr()
    assert f"images are normalised: {told}" in found.out + found.err
    assert run(["info", photos.parent / "tiny.zarr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"normalised   {told}" in lines
    assert any(
        line.startswith("note         tiny: 30 tensors under timm's names") for line in lines
    )


def test_a_store_from_other_settings_under_the_same_path(
    photos: Path, fails: Callable[..., str]
) -> None:
    index(photos)
    assert run(extract(photos)) == 0
    before = vitfeat.open(photos.parent / "tiny.zarr")["cls"][:]
    line = fails(*extract(photos, "--dtype", "float32"))
    assert "dtype: float16 in the store, float32 asked" in line
    assert "--replace" in line
    np.testing.assert_array_equal(vitfeat.open(photos.parent / "tiny.zarr")["cls"][:], before)
    assert run(extract(photos, "--dtype", "float32", "--replace")) == 0
    assert vitfeat.open(photos.parent / "tiny.zarr")["cls"].dtype == np.float32


def test_what_is_no_store_is_never_replaced(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    precious = photos.parent / "tiny.zarr" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    assert "no store" in fails(*extract(photos, "--replace"))
    assert precious.read_text() == "years of work"


def test_the_manifest_is_that_of_the_store_beside_it(photos: Path) -> None:
    index(photos)
    for dtype in ("float16", "float32"):
        assert run(extract(photos, "--dtype", dtype, "--replace")) == 0
        manifest = json.loads((photos.parent / "tiny.json").read_text("utf-8"))
        assert manifest["fingerprint"] == vitfeat.open(photos.parent / "tiny.zarr").fingerprint


def test_all_tokens_means_all_that_the_model_has(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    assert run(extract(photos, "--taps", "cls")) == 0
    out = photos.parent / "gram.safetensors"
    line = fails("run", "gram", photos.parent / "tiny.zarr", "--tokens", "all", "--out", out)
    assert "no spatial in this store" in line
    assert not out.exists()


def test_a_damaged_store_is_not_analysed(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    assert run(extract(photos)) == 0
    flip(shard_of(photos.parent / "tiny.zarr", "cls"), 10)
    out = photos.parent / "gram.safetensors"
    line = fails("run", "gram", photos.parent / "tiny.zarr", "--tokens", "cls", "--out", out)
    assert "of cls cannot be decoded" in line
    assert not out.exists()


def test_a_place_that_cannot_be_written(photos: Path, fails: Callable[..., str]) -> None:
    (photos.parent / "file").write_text("in the way")
    line = fails(*index_command(photos, photos.parent / "file" / "index.csv"))
    assert "file" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers(
    photos: Path, fails: Callable[..., str], value: float
) -> None:
    index(photos)
    state = load_backbone(ModelEntry.from_mapping("tiny", TINY)).module.state_dict()
    state["blocks.1.mlp.fc2.bias"][3] = value
    weights = photos.parent / "nan.safetensors"
    save_file(state, weights)
    line = fails(*extract(photos, checkpoint=str(weights)))
    for word in ("model tiny", "image cat/a.png", "layer 1", "tap cls", "NaN or inf"):
        assert word in line
    assert not (photos.parent / "tiny.zarr").exists()


def test_a_value_that_does_not_fit_float16(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    state = load_backbone(ModelEntry.from_mapping("tiny", TINY)).module.state_dict()
    state["blocks.0.mlp.fc2.bias"][3] = 1e6
    weights = photos.parent / "large.safetensors"
    save_file(state, weights)
    line = fails(*extract(photos, checkpoint=str(weights)))
    for word in ("layer 0", "1e+06", "float16", "dtype: float32"):
        assert word in line
    shutil.rmtree(photos.parent / "tiny.zarr.partial")
    assert run(extract(photos, "--dtype", "float32", checkpoint=str(weights))) == 0


def test_fewer_than_four_images_for_cka(photos: Path, fails: Callable[..., str]) -> None:
    index(photos, "--limit", "3")
    assert run(extract(photos)) == 0
    gram = photos.parent / "gram.safetensors"
    store = photos.parent / "tiny.zarr"
    assert run(["run", "gram", store, "--tokens", "cls", "--out", gram]) == 0
    out = photos.parent / "cka.csv"
    line = fails("run", "cka", gram, "--out", out)
    assert "at least 4 images" in line
    assert "has 3" in line
    assert not out.exists()


def test_no_space_left(
    photos: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_files", full)
    line = fails(*extract(photos))
    assert "no space left" in line
    assert "go on" in line
    assert not (photos.parent / "tiny.zarr").exists()
    assert not (photos.parent / "tiny.json").exists()
    monkeypatch.undo()
    assert run(extract(photos)) == 0


def test_a_disk_that_cannot_hold_the_estimate(
    photos: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos)
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    line = fails(*extract(photos))
    assert "1000 B free" in line
    assert not (photos.parent / "tiny.zarr.partial").exists()


def test_an_unknown_model(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    command = [a for a in extract(photos) if a != "tiny"]
    at = command.index("--entry")
    del command[at : at + 2]
    line = fails("extract", "demo-dinno", *command[1:])
    assert "'demo-dino'" in line


def test_a_store_that_is_not_there(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "no such store" in fails("info", tmp_path / "a.zarr")


def test_a_damaged_store(photos: Path, fails: Callable[..., str]) -> None:
    index(photos)
    assert run(extract(photos)) == 0
    flip(shard_of(photos.parent / "tiny.zarr", "spatial"), 100)
    line = fails("verify", photos.parent / "tiny.zarr")
    assert "spatial, shard 0" in line


@pytest.mark.parametrize(
    "models", ['{"id": "a"}', '["a"]', '[{"id": "a", "label": "A"}]', '[{"id": "a", "label": 1}]']
)
@pytest.mark.parametrize("command", ["draw clustering", "run attention_model"])
def test_models_that_figures_cannot_show(
    tmp_path: Path, fails: Callable[..., str], command: str, models: str
) -> None:
    more = ["--datasets", "d"] if command.startswith("draw") else ["--maps", tmp_path]
    words = [*command.split(), tmp_path, *more, "--models", models, "--out", tmp_path / "out"]
    line = fails(*words)
    assert f"--models: found {models}; allowed: a list of mappings with id, label" in line


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ('{"two": ["demo-min"]}', "--sets: two: found 'demo-min' (did you mean 'demo-mae'?)"),
        ('["a"]', '--sets: found ["a"]; allowed: {NAME: [ID, ...], ...} as JSON'),
    ],
)
def test_sets_of_models_that_are_not_there(
    tmp_path: Path, fails: Callable[..., str], sets: str, words: str
) -> None:
    models = json.dumps([{"id": "demo-mae", "label": "MAE", "family": "mae", "size": ""}])
    draw = ["draw", "clustering", tmp_path, "--datasets", "d"]
    assert words in fails(*draw, "--models", models, "--sets", sets)


def test_a_bug_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("vitfeat.store.opening.open_store", broken)
    log = tmp_path / "log.txt"
    with pytest.raises(ZeroDivisionError):
        main(["info", str(tmp_path), "--log", str(log)])
    assert "ZeroDivisionError: ours" in log.read_text()
    # Where a workflow shows it from the log, it is not written to the terminal too.
    monkeypatch.setenv(ERRORS_FROM_LOGS, "1")
    assert main(["info", str(tmp_path), "--log", str(log)]) == 1
    assert "ZeroDivisionError: ours" in log.read_text()


def test_ctrl_c_in_a_callback_ends_the_command(tmp_path: Path) -> None:
    # As in those of imports, where Python tells of it and goes on.
    code = """
import sys, weakref
import vitfeat.store.opening
from vitfeat.cli import main

class Thing: pass

def stop(_):
    raise KeyboardInterrupt

def opening(_):
    thing = Thing()
    watched = weakref.ref(thing, stop)
    del thing
    print("went on")

vitfeat.store.opening.open_store = opening
sys.exit(main(["info", "x.zarr", "--log", sys.argv[1]]))
"""
    log = tmp_path / "log.txt"
    done = subprocess.run(
        [sys.executable, "-c", code, str(log)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != ERRORS_FROM_LOGS},
    )
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr == log.read_text() == "vitfeat: error: interrupted\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_vitfeat_without_a_command_is_its_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as left:  # argparse's own way out of --help
        status = int(left.code or 0)
    found = capsys.readouterr()
    assert status == 0
    assert found.out.startswith("usage: vitfeat")
    assert "extract" in found.out
    assert not found.err
