"""An extraction from a notebook is that of the command, begun, resumed and refused by one call."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitfeat
from tests.store.filled import files
from vitfeat.cli import main
from vitfeat.config.model import ConfigModel, Extraction
from vitfeat.data.views import PaddedView
from vitfeat.errors import VitfeatError
from vitfeat.store.writer import StoreWriter

OWN = {
    "tiny": {
        "source": "timm",
        "name": "vit_tiny_patch16_224",
        "args": {"depth": 2, "embed_dim": 16, "num_heads": 2},
        "image_size": 32,
        "normalisation": "half",
    }
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images are three blocks."""
    monkeypatch.setattr("vitfeat.store.layout._MAX_BLOCK", 2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "photos.zarr"


def _extract(images: Any, out: Path, model: Any = "demo-dino", **settings: Any) -> Any:
    return vitfeat.extract(model, images, out, **{"progress": False, "device": "cpu"} | settings)


def test_it_is_the_extraction_of_the_command(photos: Path, out: Path, tmp_path: Path) -> None:
    index, expected = str(tmp_path / "index.csv"), tmp_path / "command" / out.name
    command = ["index", "photos", "--layout", "folder", "--root", str(photos), "--out", index]
    assert main(command) == 0
    command = ["extract", "demo-dino", "--index", index, "--root", str(photos)]
    assert main([*command, "--device", "cpu", "--out", str(expected)]) == 0
    store = _extract(photos, out)
    assert store["cls"].shape == (6, 6, 64)
    assert files(out) == files(expected)
    assert out.with_suffix(".json").read_bytes() == expected.with_suffix(".json").read_bytes()


def test_subfolders_are_classes(photos: Path, out: Path) -> None:
    store = _extract(photos, out)
    assert store.classes == {0: "cat", 1: "dog"}
    assert store.image_ids[0] == "cat/a.png"
    assert store.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_images_in_the_folder_itself_have_no_classes(photos: Path, out: Path) -> None:
    shutil.copy(photos / "cat/a.png", photos / "z.png")
    store = _extract(photos, out)
    assert store.classes == {}
    assert [str(name) for name in store.image_ids] == [
        *("cat/a.png", "cat/b.png", "cat/c.png", "dog/d.png", "dog/e.png", "dog/f.png", "z.png")
    ]


def test_files_stand_in_the_order_of_their_list(photos: Path, out: Path, tmp_path: Path) -> None:
    """Whatever they are called, and links that lead elsewhere."""
    odd = photos / "#1\t one\n.png"
    shutil.copy(photos / "cat/a.png", odd)
    link = photos / "link.png"
    shutil.copy(photos / "cat/b.png", tmp_path / "elsewhere.png")
    link.symlink_to(tmp_path / "elsewhere.png")
    store = _extract([str(photos / "dog/d.png"), odd, link, photos / "cat/a.png"], out)
    assert store.image_ids == ["dog/d.png", odd.name, "link.png", "cat/a.png"]
    assert store.classes == {}
    assert np.array_equal(store["cls"][1], store["cls"][3])
    assert not np.array_equal(store["cls"][0], store["cls"][3])


def test_a_single_file(photos: Path, out: Path) -> None:
    store = _extract(photos / "cat/b.png", out)
    assert store.image_ids == ["b.png"]


def test_a_dataset_as_a_config_has_it(photos: Path, out: Path) -> None:
    (photos / "dog/broken.png").write_bytes(b"no image")
    dataset = {"layout": "folder", "root": str(photos), "per_class": 3, "on_error": "skip"}
    store = _extract(dataset | {"view": {"kind": "padded"}}, out)
    assert store.classes == {0: "cat", 1: "dog"}
    assert store.n_images == 6
    assert isinstance(store.view, PaddedView)


def test_a_model_of_ones_own(photos: Path, out: Path) -> None:
    store = _extract(photos, out, OWN, taps="cls", layers="last", dtype="float32", keep_bits=9)
    assert store.model == "tiny"
    assert list(store) == ["cls"]
    assert store["cls"].shape == (6, 1, 16)
    assert store["cls"].dtype == np.float32
    bits = np.asarray(store["cls"][:]).view(np.uint32)
    assert not (bits & (2**14 - 1)).any()


def test_taps_limits_and_view(photos: Path, out: Path) -> None:
    store = _extract(
        photos,
        out,
        taps=["cls", "attention"],
        limits={"attention": 2},
        layers=[0, "last"],
        view={"kind": "padded"},
    )
    assert store["attention"].shape[:2] == (2, 2)
    assert store["cls"].shape == (6, 2, 64)
    assert isinstance(store.view, PaddedView)


def _blocks_written(monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> list[int]:
    """Keep the numbers of blocks that are written; a notebook is interrupted in the last one."""
    written: list[int] = []
    write = StoreWriter.write_block

    def counted(self: StoreWriter, block: int, *arguments: Any, **options: Any) -> None:
        if len(written) == stop:
            raise KeyboardInterrupt
        write(self, block, *arguments, **options)
        written.append(block)

    monkeypatch.setattr(StoreWriter, "write_block", counted)
    return written


def test_it_is_resumed_where_it_stopped(
    photos: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _extract(photos, tmp_path / "whole.zarr")
    with pytest.MonkeyPatch.context() as patch:
        assert _blocks_written(patch, stop=2) == []
        with pytest.raises(KeyboardInterrupt):
            _extract(photos, out, batch_size=2)
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        written = _blocks_written(patch)
        store = _extract(photos, out, batch_size=2, progress=True)
    assert written == [2]
    assert "6/6" in capsys.readouterr().err
    assert np.array_equal(store["cls"][:], vitfeat.open(tmp_path / "whole.zarr")["cls"][:])


def test_what_is_finished_is_opened(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _extract(photos, out)
    written = _blocks_written(monkeypatch)
    assert _extract(photos, out).fingerprint == first.fingerprint
    assert written == []


def test_a_store_from_other_settings_stays_unless_it_may_be_replaced(
    photos: Path, out: Path
) -> None:
    _extract(photos, out)
    before = files(out)
    with pytest.raises(VitfeatError, match=r"other settings .*replace=True"):
        _extract(photos, out, "demo-mae")
    assert files(out) == before
    assert _extract(photos, out, "demo-mae", replace=True).model == "demo-mae"


def test_a_bar_shows_how_far_it_is(
    photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _extract(photos, out.with_name("silent.zarr"))
    assert capsys.readouterr().err == ""
    _extract(photos, out, progress=True)
    shown = capsys.readouterr().err
    assert "demo-dino" in shown
    assert "6/6" in shown
    assert "images" in shown


def test_what_there_is_to_say_is_logged(
    photos: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "cat/notes.txt").write_text("no image")
    with caplog.at_level("INFO", logger="vitfeat"):
        _extract(photos, out)
    assert "1 file ignored, not an image by the extension" in caplog.text
    assert "6 images x 6 layers" in caplog.text


Refused = Callable[[Path], dict[str, Any]]

REFUSED: dict[str, tuple[Refused, str]] = {
    "model": (lambda p: {"model": "demo-dinno"}, "did you mean 'demo-dino'"),
    "no entry": (
        lambda p: {"model": {"source": "timm", "name": "vit"}},
        "one model as in `catalog:`",
    ),
    "no model": (lambda p: {"model": 3}, "an id of the catalogue"),
    "field of an entry": (
        lambda p: {"model": {"m": {"source": "tim", "name": "vit"}}},
        "catalog.m.source",
    ),
    "folder": (lambda p: {"images": p / "fotos"}, "does not exist"),
    "files": (lambda p: {"images": []}, "an empty list"),
    "twice": (lambda p: {"images": [p / "cat/a.png", str(p / "cat/../cat/a.png")]}, "twice"),
    "absent": (lambda p: {"images": [p / "cat/a.png", p / "cat/x.png"]}, "cat/x.png"),
    "key": (lambda p: {"images": {"layout": "flat", "rot": "x"}}, "did you mean 'root'"),
    "tap": (lambda p: {"taps": ["clss"]}, "extract: taps.0: found 'clss' (did you mean 'cls'"),
    "layer": (lambda p: {"layers": "lasst"}, "extract: layers: found 'lasst'"),
    "no such layer": (lambda p: {"layers": 12}, "a model of 6 layers"),
    "dtype": (lambda p: {"dtype": "float64"}, "extract: dtype: found 'float64'"),
    "bits": (lambda p: {"keep_bits": 0}, "extract: keep_bits"),
    "precision": (lambda p: {"precision": "fp8"}, "extract: precision"),
    "batch": (lambda p: {"batch_size": 0}, "extract: batch_size"),
    "device": (lambda p: {"device": "tpu"}, "extract: device: found 'tpu'"),
    "workers": (lambda p: {"workers": "two"}, "extract: workers: found 'two'"),
    "view": (lambda p: {"view": {"kind": "round"}}, "extract: view.kind: found 'round'"),
    "limit": (lambda p: {"limits": {"cls": 0}}, "limit of the tap cls"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(photos: Path, out: Path, case: str) -> None:
    options, words = REFUSED[case]
    with pytest.raises(VitfeatError) as refused:
        _extract(**{"images": photos, "out": out} | options(photos))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not out.exists()


def test_a_broken_image_is_named(photos: Path, out: Path) -> None:
    (photos / "cat/b.png").write_bytes(b"no image")
    with pytest.raises(VitfeatError, match=r"cat/b\.png"):
        _extract(photos, out)


def test_defaults_are_those_of_a_config() -> None:
    parameters = inspect.signature(vitfeat.extract).parameters
    usual = {"weights": ConfigModel.model_fields["weights"].default} | dict(Extraction())
    # Stores are not replaced unasked here: no config says what they should be.
    shared = (parameters.keys() & usual.keys()) - {"taps", "replace"}
    assert shared >= {"layers", "dtype", "keep_bits", "precision", "batch_size", "device"}
    assert {name: parameters[name].default for name in shared} == {n: usual[n] for n in shared}
