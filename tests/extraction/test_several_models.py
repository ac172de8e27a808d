"""One job that pushes a dataset through several models, and what becomes of the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.store.filled import files
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.extraction import from_entry
from vitfeat.models.backbone import Backbone

ENTRY = {"source": "timm", "name": "test_vit", "normalisation": "half", "pretrained": False}
ENTRIES = {model: {**ENTRY, "seed": seed} for seed, model in enumerate(("a", "b", "c"))}


class Command:
    """``vitfeat extract`` of models into a folder."""

    def __init__(self, folder: Path, index: Index, images: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        index.write(folder / "index.csv")
        self._where = ["--index", str(folder / "index.csv"), "--root", str(images)]

    def __call__(self, *models: str, out: str = "{model}.zarr", **entries: object) -> int:
        fields = [json.dumps({**ENTRIES[m], **entries.get(m, {})}) for m in models]  # type: ignore[dict-item]
        words = ["extract", *models, *(f"--entry={f}" for f in fields), *self._where]
        ways = ["--taps", "cls", "--workers", "0", "--threads", "1", "--log", str(self.log)]
        return main([*words, "--out", str(self.folder / out), *ways])

    def store(self, model: str) -> Path:
        return self.folder / f"{model}.zarr"

    def said(self) -> str:
        return self.log.read_text("utf-8")


@pytest.fixture
def extract(tmp_path: Path, index: Index, folder: Path) -> Command:
    return Command(tmp_path, index, folder)


def test_stores_of_one_job_have_the_bytes_of_those_of_a_job_each(
    extract: Command, tmp_path: Path, index: Index, folder: Path
) -> None:
    assert extract("a", "b") == 0
    (tmp_path / "alone").mkdir()
    alone = Command(tmp_path / "alone", index, folder)
    for model in ("a", "b"):
        assert alone(model) == 0
        assert files(extract.store(model)) == files(alone.store(model))
        manifests = [c.store(model).with_suffix(".json").read_bytes() for c in (extract, alone)]
        assert manifests[0] == manifests[1]
    assert files(extract.store("a")) != files(extract.store("b"))


def test_the_log_says_which_model_each_line_is_of_and_which_is_extracted_now(
    extract: Command,
) -> None:
    assert extract("a", "b") == 0
    lines = extract.said().splitlines()
    assert {line.partition(": ")[0] for line in lines} == {"a", "b"}
    assert "a: 0 of 22 images" in lines
    assert "b: 0 of 22 images" in lines


def test_a_model_that_fails_is_named_and_all_others_are_extracted(
    extract: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract("a", "b", "c", b={"args": {"depht": 3}}) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vitfeat: error: ")
    assert " b: " in line
    assert "depht" in line
    assert not list(extract.folder.glob("b.*"))
    before = {model: files(extract.store(model)) for model in ("a", "c")}
    assert extract("a", "b", "c") == 0
    for model, held in before.items():
        assert f"{model}: {extract.store(model)}: already there, whole" in extract.said()
        assert files(extract.store(model)) == held
        assert f"{model}: 0 of 22 images" not in extract.said()
    assert extract.store("b").exists()


def test_several_that_fail_are_all_told(
    extract: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"args": {"depht": 3}}
    assert extract("a", "b", "c", a=wrong, c=wrong) == 1
    assert " a: " in capsys.readouterr().err
    assert " c: " in extract.said()
    assert extract.store("b").exists()


def test_a_store_of_other_settings_in_the_way_is_an_error_that_names_its_model(
    extract: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract("a") == 0
    shutil.move(extract.store("a"), extract.store("b"))
    shutil.move(extract.store("a").with_suffix(".json"), extract.store("b").with_suffix(".json"))
    held = files(extract.store("b"))
    assert extract("a", "b") == 1
    assert "b.zarr: a store from other settings" in capsys.readouterr().err
    assert files(extract.store("b")) == held
    assert extract.store("a").exists()


def test_an_interrupted_job_leaves_finished_stores_and_goes_on_at_the_model_it_was_at(
    extract: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = from_entry.load_backbone

    def stopped(entry: object, **ways: object) -> Backbone:
        if entry.id == "b":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return load(entry, **ways)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(from_entry, "load_backbone", stopped)
        assert extract("a", "b", "c") == 130
    assert [extract.store(m).exists() for m in ENTRIES] == [True, False, False]
    assert extract("a", "b", "c") == 0
    assert [f"{m}: 0 of 22 images" in extract.said() for m in ENTRIES] == [False, True, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "one.zarr"], "--out: found one path for 2 models; it needs {model}"),
        (
            ["--out", "{model}.zarr", "--manifest", "m.json"],
            "--manifest: found one path for 2 models; it needs {model}",
        ),
        (["--out", "{model}.zarr", "--entry", "{}"], "--entry: found 1 for 2 models"),
    ],
)
def test_what_does_not_tell_models_apart_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    where = ["--index", str(tmp_path / "index.csv"), "--root", str(tmp_path)]
    assert main(["extract", "demo-dino", "demo-mae", *where, *words]) == 1
    assert capsys.readouterr().err.strip() == f"vitfeat: error: {said}"
    assert list(tmp_path.iterdir()) == []
