from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.figures.made_tables import (
    DEMO,
    attention_rows,
    cka_rows,
    clustering_rows,
    models,
    norm_rows,
)
from vitfeat.analyses.rows import AttentionRow, ResidualCkaRow, ResidualNormRow, ScoreRow
from vitfeat.cli import main
from vitfeat.figures import style
from vitfeat.tables import write_table

MADE = DEMO[:3]
NAMES = {
    "attention": {"by_layer", "families", "breakout", "averages"},
    "clustering": {"by_layer", "families", "best"},
    "residual": {"norms", "families", "cka"},
}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    for dataset in ("digits", "photos"):
        for made in MADE:
            at, mine = dataset, [made]
            name = made.model.id
            write_table(
                tmp_path / "attention" / at / f"{name}.csv",
                AttentionRow,
                attention_rows(mine, dataset),
            )
            write_table(
                tmp_path / "clustering" / at / f"{name}.csv",
                ScoreRow,
                clustering_rows(mine, dataset),
            )
            write_table(
                tmp_path / "residual" / at / f"{name}.norms.csv",
                ResidualNormRow,
                norm_rows(mine, dataset),
            )
            write_table(
                tmp_path / "residual" / at / f"{name}.cka.csv",
                ResidualCkaRow,
                cka_rows(mine, dataset),
            )
    return tmp_path


def run(tables: Path, analysis: str, *more: str, datasets: Sequence[str] = ("digits",)) -> int:
    """Draw all figures into the folder ``out``."""
    given = json.dumps([asdict(model) for model in models(MADE)])
    command = ["draw", analysis, str(tables / analysis), "--datasets", *datasets]
    return main([*command, "--models", given, "--out", str(tables / "out"), *more])


def drawn(tables: Path, dataset: str = "digits") -> Path:
    return tables / "out" / dataset / "sets" / "all"


def contents(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("analysis", NAMES)
def test_every_figure_has_a_pdf_and_its_numbers_beside_it(analysis: str, tables: Path) -> None:
    assert run(tables, analysis) == 0
    expected = {f"{name}.{kind}" for name in NAMES[analysis] for kind in ("png", "pdf", "csv")}
    assert {path.name for path in drawn(tables).iterdir()} == expected
    for name in NAMES[analysis]:
        with Image.open(drawn(tables) / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5
        rows = contents(drawn(tables) / f"{name}.csv")
        assert {row["model"] for row in rows} == {made.model.id for made in MADE}
        assert {row["dataset"] for row in rows} == {"digits"}


def test_figures_are_written_as_the_flag_says(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(style, "FORMATS", style.FORMATS)
    monkeypatch.setattr(style, "PAGE_WIDTH", style.PAGE_WIDTH)
    assert run(tables, "clustering", "--figures", '{"format": ["svg"], "columns": 1}') == 0
    assert {path.suffix for path in drawn(tables).iterdir()} == {".png", ".svg", ".csv"}
    with Image.open(drawn(tables) / "by_layer.png") as image:
        assert image.width <= style.WIDTHS[1] * style.DPI
    assert run(tables, "clustering", "--figures", '{"format": ["gif"]}') == 1
    assert "--figures: format.0: found 'gif'" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("analysis", NAMES)
def test_the_overview_is_of_all_datasets(analysis: str, tables: Path) -> None:
    both = ("digits", "photos")
    assert run(tables, analysis, datasets=both) == 0
    rows = contents(tables / "out/all.csv")
    assert {row["dataset"] for row in rows} == set(both)
    assert (tables / "out/all.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_tables_give_the_same_files(tables: Path) -> None:
    assert run(tables, "clustering") == 0
    before = {path: path.read_bytes() for path in drawn(tables).iterdir()}
    assert run(tables, "clustering") == 0
    assert before == {path: path.read_bytes() for path in drawn(tables).iterdir()}


def test_numbers_beside_are_those_of_the_tables(tables: Path) -> None:
    assert run(tables, "attention") == 0
    rows = attention_rows(MADE)
    for row in contents(drawn(tables) / "breakout.csv"):
        (mine,) = (
            r
            for r in rows
            if (r.model, r.metric, str(r.layer), str(r.head))
            == (row["model"], row["metric"], row["layer"], row["head"])
        )
        assert float(row["value"]) == mine.mean
    by_layer, families = (contents(drawn(tables) / f"{n}.csv") for n in ("by_layer", "families"))
    assert by_layer == families
    assert run(tables, "residual") == 0
    written = [float(row["cka"]) for row in contents(drawn(tables) / "cka.csv")]
    np.testing.assert_array_equal(written, [row.cka for row in cka_rows(MADE)])


def test_residual_figures_do_without_cka(tables: Path) -> None:
    for path in (tables / "residual").rglob("*.cka.csv"):
        path.unlink()
    assert run(tables, "residual", "--tokens") == 0
    assert not (drawn(tables) / "cka.png").exists()
    assert (tables / "out/all.png").exists()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("analysis", NAMES)
def test_an_absent_table_is_an_error_in_one_line(
    analysis: str, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tables / analysis / "digits").glob("demo-clip*"):
        path.unlink()
    assert run(tables, analysis) == 1
    assert f"{analysis}/digits/demo-clip" in said(capsys)
    assert not (tables / "out").exists()


def test_a_table_of_another_model_is_an_error_in_one_line(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tables / "attention" / "digits"
    (folder / "demo-clip.csv").write_bytes((folder / "demo-dino.csv").read_bytes())
    assert run(tables, "attention") == 1
    assert "demo-clip.csv holds values of demo-dino on digits, not of demo-clip" in said(capsys)


def test_empty_tables_are_an_error_in_one_line(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for made in MADE:
        write_table(tables / "clustering" / "digits" / f"{made.model.id}.csv", ScoreRow, [])
    assert run(tables, "clustering") == 1
    assert "no values to draw" in said(capsys)


def test_one_empty_table_leaves_the_others(tables: Path) -> None:
    write_table(tables / "attention" / "digits" / "demo-dino.csv", AttentionRow, [])
    assert run(tables, "attention") == 0
    rows = contents(drawn(tables) / "by_layer.csv")
    assert {row["model"] for row in rows} == {"demo-supervised", "demo-clip"}


def test_pyplot_and_torch_are_left_alone() -> None:
    code = (
        "import sys, vitfeat.jobs.figures_across; "
        "sys.exit(bool({'matplotlib.pyplot', 'torch', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
