"""The commands of all tasks together, on made-up tables."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.figures.made_tables import DEMO, models
from tests.figures.made_tasks import task_rows
from vitfeat.analyses.own import register_own
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.scoring import TOGETHER
from vitfeat.cli import main
from vitfeat.tables import write_table

MADE = DEMO[:2]
IDS = [one.model.id for one in MADE]
SHOWN = json.dumps([asdict(model) for model in models(MADE)])


def write(results: Path, tasks: Sequence[str], datasets: Sequence[str] = ("digits",)) -> None:
    for task in tasks:
        for dataset in datasets:
            for one in MADE:
                path = results / task / dataset / f"{one.model.id}.csv"
                write_table(path, ScoreRow, task_rows(task, [one], dataset))


def collect(results: Path, *tables: str, sets: str = "{}") -> int:
    words = ["collect", str(results), "--tables", *tables, "--models", SHOWN, "--sets", sets]
    return main(words)


def draw(results: Path, task: str, datasets: Sequence[str] = ("digits",)) -> int:
    command = ["draw", task, str(results / task), "--datasets", *datasets, "--models", SHOWN]
    return main([*command, "--out", str(results / "out")])


def contents(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_all_tables_are_collected_in_the_order_that_is_asked(tmp_path: Path) -> None:
    write(tmp_path, scored(), ("b", "a"))
    order = [f"{task}/{dataset}" for task in scored() for dataset in ("b", "a")]
    assert collect(tmp_path, *order) == 0
    expected = [
        row
        for one in order
        for made in MADE
        for row in task_rows(one.partition("/")[0], [made], one.partition("/")[2])
        if not row.group
    ]
    assert read_scores(tmp_path / "tasks/all.csv") == expected
    best = contents(tmp_path / "tasks/best.csv")
    assert list(best[0]) == [
        *("task", "dataset", "model", "features", "variant", "score"),
        *("layer", "depth", "value", "n"),
    ]
    assert {(row["task"], row["dataset"], row["model"]) for row in best} == {
        (row.task, row.dataset, row.model) for row in expected
    }
    for task, scoring in scored().items():
        for dataset in ("a", "b"):
            mine = [row for row in best if (row["task"], row["dataset"]) == (task, dataset)]
            assert scoring.headline.score in {row["score"] for row in mine}


def test_an_absent_table_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ["knn", "video"])
    (tmp_path / "video/digits" / f"{IDS[1]}.csv").unlink()
    assert collect(tmp_path, "knn/digits", "video/digits") == 1
    assert f"video/digits/{IDS[1]}.csv" in said(capsys)
    assert not (tmp_path / "tasks").exists()
    assert draw(tmp_path, "video") == 1
    assert f"video/digits/{IDS[1]}.csv" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_tables_of_something_else_are_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ["knn", "video"])
    path = tmp_path / "video/digits" / f"{IDS[0]}.csv"
    path.write_bytes((tmp_path / "knn/digits" / path.name).read_bytes())
    assert collect(tmp_path, "video/digits") == 1
    assert "holds values of knn, not of video: compute it again" in said(capsys)
    path.write_bytes((tmp_path / "video/digits" / f"{IDS[1]}.csv").read_bytes())
    assert collect(tmp_path, "video/digits") == 1
    assert f"{IDS[0]}.csv holds values of {IDS[1]} on digits, not of {IDS[0]}" in said(capsys)


def test_a_task_that_is_none_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(tmp_path, "knm/digits") == 1
    assert "--tables knm/digits: no scored analysis with a dataset (did you mean 'knn'?)" in said(
        capsys
    )
    assert collect(tmp_path, "knn") == 1
    assert "allowed: ANALYSIS/DATASET" in said(capsys)


@pytest.mark.parametrize("task", ["video", "linear_probe"])
def test_every_figure_has_a_pdf_and_its_numbers_beside_it(task: str, tmp_path: Path) -> None:
    write(tmp_path, [task])
    out = tmp_path / "out/digits/sets/all"
    assert draw(tmp_path, task) == 0
    expected = {
        f"{name}.{kind}" for name in scored()[task].figures for kind in ("png", "pdf", "csv")
    }
    assert {path.name for path in out.iterdir()} == expected
    for name in scored()[task].figures:
        rows = contents(out / f"{name}.csv")
        assert {row["model"] for row in rows} == set(IDS)
        assert {row["dataset"] for row in rows} == {"digits"}


def test_the_overview_is_of_all_datasets(tmp_path: Path) -> None:
    both = ("one", "two")
    write(tmp_path, ["keypoints"], both)
    png = tmp_path / "out/all.png"
    assert draw(tmp_path, "keypoints", both) == 0
    assert {row["dataset"] for row in contents(png.with_suffix(".csv"))} == set(both)
    assert png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_all_tasks_are_drawn_of_every_choice_of_models(tmp_path: Path) -> None:
    write(tmp_path, scored())
    sets = json.dumps({"one": IDS[1:]})
    assert collect(tmp_path, *(f"{task}/digits" for task in scored()), sets=sets) == 0
    out = tmp_path / "tasks/sets/all"
    for folder, ids in ((out, IDS), (tmp_path / "tasks/sets/one", IDS[1:])):
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.{kind}" for name in TOGETHER for kind in ("png", "pdf", "csv")
        }
        for name in TOGETHER:
            assert {row["model"] for row in contents(folder / f"{name}.csv")} == set(ids)
    best = {tuple(row.values()) for row in contents(tmp_path / "tasks/best.csv")}
    drawn = contents(out / "heat_map.csv")
    assert contents(out / "best_depth.csv") == drawn
    assert len(drawn) == (len(scored()) + 1) * len(MADE)
    assert {tuple(row.values()) for row in drawn} <= best


def test_empty_tables_are_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in IDS:
        write_table(tmp_path / "video/digits" / f"{name}.csv", ScoreRow, [])
    assert draw(tmp_path, "video") == 1
    assert "no values to draw" in said(capsys)
    assert collect(tmp_path, "video/digits") == 1
    assert read_scores(tmp_path / "tasks/all.csv") == []
    assert "no values to draw" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "tasks/sets").exists()


def test_other_choices_of_models_are_drawn_where_one_has_no_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ["video"])
    write_table(tmp_path / "video/digits" / f"{IDS[0]}.csv", ScoreRow, [])
    sets = json.dumps({"none": IDS[:1], "one": IDS[1:]})
    assert collect(tmp_path, "video/digits", sets=sets) == 1
    assert "no values to draw" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "tasks/sets").iterdir()) == ["all", "one"]


@pytest.fixture
def texture(tmp_path: Path) -> None:
    """Make one of the user's own, of two scores; only the first ranks layers."""
    module = tmp_path / "texture.py"
    module.write_text(
        "SCORES = {'within': 'Variance within', 'decay': 'Decay'}\ndef rows(store, settings): ...\n"
    )
    register_own({"texture": str(module)})


@pytest.mark.usefixtures("texture")
@pytest.mark.parametrize("features", ["", "spatial"])
def test_scores_of_the_users_own_are_drawn_and_collected(tmp_path: Path, features: str) -> None:
    write(tmp_path, ["knn"])
    for at, name in enumerate(IDS):
        rows = [
            ScoreRow("texture", name, "digits", layer, features, "", score, "", 5, at + value)
            for score in ("within", "decay")
            for layer, value in enumerate((0.2, 0.7, 0.1))
        ]
        write_table(tmp_path / "texture/digits" / f"{name}.csv", ScoreRow, rows)
    assert draw(tmp_path, "texture") == 0
    names = {path.stem for path in (tmp_path / "out/digits/sets/all").iterdir()}
    assert names == {"by_layer", "families", "best"}
    assert {row["score"] for row in contents(tmp_path / "out/all.csv")} == {"within", "decay"}
    assert collect(tmp_path, "knn/digits", "texture/digits") == 0
    best = contents(tmp_path / "tasks/best.csv")
    own = [(row["score"], row["layer"]) for row in best if row["task"] == "texture"]
    assert own == [("within", "1")] * len(IDS)
    shown = contents(tmp_path / "tasks/sets/all/heat_map.csv")
    assert {row["task"] for row in shown} == {"knn", "texture"}


def test_pyplot_and_torch_are_left_alone() -> None:
    code = (
        "import sys, vitfeat.jobs.figures_across, vitfeat.jobs.collect; "
        "sys.exit(bool({'matplotlib.pyplot', 'torch', 'scipy', 'sklearn', 'numba'} "
        "& set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
