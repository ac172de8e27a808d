"""From tables and files of maps to the figures of each model, by the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.analyses.attention.made_maps import made_maps
from tests.figures.made_tables import Made, attention_rows
from vitfeat.analyses.attention.map_figures import common_limit
from vitfeat.analyses.attention.map_file import write_maps
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.rows import AttentionRow
from vitfeat.cli import main
from vitfeat.figures.models import Model
from vitfeat.tables import write_table

NAMES = ("by_layer", "heads_sorted", "heads", "metrics", "token_maps", "token_maps_common")
MADE = [
    Made(Model("a", "Alpha", "dino"), 3, 2),
    Made(Model("b", "Beta", "mae"), 2, 3, has_cls=False),
]
TOKENS = {"a": Tokens((2, 3), True, 1), "b": Tokens((3, 3), False)}
MODELS = [{"id": one.model.id, "label": one.model.label, "family": "dino"} for one in MADE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    rows = attention_rows(MADE)
    for one in MADE:
        name = one.model.id
        own = [row for row in rows if row.model == name]
        write_table(path / f"{name}.csv", AttentionRow, own)
        maps = made_maps(TOKENS[name], one.depth, one.heads, model=name, seed=one.depth)
        write_maps(path / f"{name}.nc", maps)
    return path


def plot(folder: Path, *more: str, models: object = MODELS) -> int:
    command = ["run", "attention_model", f"{folder}/{{model}}.csv", "--models", json.dumps(models)]
    command += ["--maps", f"{folder}/{{model}}.nc", "--out", f"{folder}/{{model}}/by_layer.png"]
    return main([*command, *more])


def classes(folder: Path) -> list[str]:
    return ["--classes", f"{folder}/{{model}}/token_map_classes.png"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by_class", [True, False])
def test_every_figure_has_a_pdf_and_its_numbers(folder: Path, by_class: bool) -> None:
    more = classes(folder) if by_class else []
    assert plot(folder, *more) == 0
    names = {*NAMES, "aligned", *(["token_map_classes"] if by_class else [])}
    written = {path: path.read_bytes() for path in folder.glob("*/*")}
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "pdf", "csv")}
    assert {path.relative_to(folder).as_posix() for path in written} == {
        f"{model}/{name}" for model in ("a", "b") for name in expected
    }
    if by_class:
        # Always the same bytes.
        assert plot(folder, *more) == 0
        assert written == {path: path.read_bytes() for path in folder.glob("*/*")}
    for model in ("a", "b"):
        for name in names:
            with Image.open(folder / model / f"{name}.png") as image:
                assert min(image.size) > 100
            rows = table(folder / model / f"{name}.csv")
            assert {(row["dataset"], row["model"]) for row in rows} == {("digits", model)}


def test_numbers_are_those_of_the_tables_and_maps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitfeat.figures.style.save", lambda *_: None)
    assert plot(folder) == 0
    given = {
        (row.metric, row.layer, row.head): row.mean
        for row in attention_rows(MADE)
        if row.model == "a"
    }
    for row in table(folder / "a" / "by_layer.csv"):
        if row["head"]:
            key = (row["metric"], int(row["layer"]), int(row["head"]))
            assert float(row["value"]) == given[key]
    scales = {row["metric"]: float(row["scale_high"]) for row in table(folder / "a" / "heads.csv")}
    every = [row for row in attention_rows(MADE) if row.metric == "entropy_share"]
    assert scales["entropy_share"] == max(row.mean for row in every)
    values = made_maps(TOKENS["a"], 3, 2, model="a", seed=3).arrays["cls_query"]
    rows = table(folder / "a" / "token_maps.csv")
    registers = [row for row in rows if (row["map"], row["token"]) == ("cls_query", "register_0")]
    assert [float(row["value"]) for row in registers] == pytest.approx(values[..., 1].ravel())
    assert rows == table(folder / "a" / "token_maps_common.csv")


def test_the_scale_of_maps_is_that_of_all_models(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def limit(models: Sequence[object]) -> float:
        limits.append([maps.model for maps in models])  # type: ignore[attr-defined]
        return common_limit(models)  # type: ignore[arg-type]

    monkeypatch.setattr("vitfeat.analyses.attention.map_figures.common_limit", limit)
    monkeypatch.setattr(
        "vitfeat.analyses.attention.model_figures_job.save_with_numbers", lambda *_: None
    )
    assert plot(folder) == 0
    assert limits == [["a", "b"]]


def refused(capsys: pytest.CaptureFixture[str], folder: Path, models: object = MODELS) -> str:
    assert plot(folder, models=models) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = [*MODELS, {"id": "c", "label": "C", "family": "dino"}]
    assert "cannot read attention table" in refused(capsys, folder, three)
    (folder / "b.nc").rename(folder / "kept.nc")
    assert "no attention maps" in refused(capsys, folder)
    (folder / "b.nc").write_bytes((folder / "kept.nc").read_bytes()[:500])
    assert "no whole NetCDF file" in refused(capsys, folder)
    (folder / "b.nc").write_bytes((folder / "a.nc").read_bytes())
    assert "holds maps of a on digits, not of b on digits" in refused(capsys, folder)
    write_maps(folder / "b.nc", made_maps(TOKENS["b"], 2, 3, model="b"))
    write_table(folder / "a.csv", AttentionRow, [])
    assert "no attention metrics of a" in refused(capsys, folder)
    assert not any(path.is_dir() for path in folder.iterdir())
