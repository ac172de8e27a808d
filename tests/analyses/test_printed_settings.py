"""Settings that change numbers stand on the figures of these, and beside their numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, words
from tests.figures.drawings import figure_of
from tests.figures.made_tables import DEMO
from tests.figures.made_tasks import task_rows
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.registry import analyses, scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.cli import main
from vitfeat.figures import style
from vitfeat.tables import write_table

TOLD = {
    "cka": {"estimators", "tokens", "without_cls"},
    "similarity": {"measures", "layers", "neighbours", "variance", "images", "confidence"}
    | {"tokens"},
    "attention": {"by_class", "high_norm"},
    "sinks": {"rule", "norms", "queries"},
    "clustering": {"features", "pattern_layers", "shuffled"},
    "residual": {"tokens"},
    "knn": {"features", "final_norm", "neighbours"},
    "linear_probe": {"features", "final_norm"},
    "retrieval": {"features", "final_norm", "ranks"},
    "video": {"masks"},
    "keypoints": {"alphas"},
    "regions": set(),
    "saliency": {"queries", "images"},
}
"""Settings of tables that figures show otherwise: in titles, axes, counts, or as what is drawn."""


@pytest.mark.parametrize("name", [name for name, a in analyses().items() if a.across])
def test_every_setting_of_a_table_is_printed_or_shown_otherwise(name: str) -> None:
    analysis = analyses()[name]
    used = {key for job in analysis.jobs for key in job.settings} | set(analysis.drawn_by)
    assert used - set(analysis.settings.printed_keys()) == TOLD[name]


def test_what_is_given_and_makes_a_difference_is_printed() -> None:
    assert KnnSettings(temperature=0.1).printed() == "temperature=0.1"
    assert SaliencySettings(masks="paper", mass=0.5, images=2).printed() == "mass=0.5, masks=paper"
    assert analyses()["linear_probe"].settings(regularisation=(1, 2.5)).printed() == (
        "regularisation=1.0/2.5"
    )
    assert CkaSettings(batch_size=64, seed=3).printed() == ""
    batches = CkaSettings(batch_size=64, seed=3, estimators=("minibatch",))
    assert batches.printed() == "batch_size=64, seed=3"
    # Of a table that nobody says anything of, the default may not be what it was made with.
    assert KnnSettings().printed() == ""
    assert KnnSettings().printed(KnnSettings.printed_keys()) == "temperature=0.07"


@pytest.mark.parametrize("task", scored())
def test_every_figure_of_a_score_has_the_settings_below_it(task: str) -> None:
    of = replace(scored()[task], printed="mass=0.6, masks=paper")
    rows = task_rows(task, DEMO[:2])
    for name in (*of.figures.values(), "overview"):
        figure = figure_of(of, name, DEMO[:2], rows)
        assert "Settings: mass=0.6, masks=paper." in words(figure), name
        assert_readable(figure)
        assert "Settings" not in words(figure_of(scored()[task], name, DEMO[:2], rows))


def test_the_commands_print_what_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: dict[str, str] = {}
    monkeypatch.setattr(style, "save", lambda figure, path: _note(texts, figure, path))
    for made in DEMO[:2]:
        path = tmp_path / "knn" / "digits" / f"{made.model.id}.csv"
        write_table(path, ScoreRow, task_rows("knn", [made]))
    models = json.dumps(
        [{"id": m.model.id, "label": "x", "family": "dino", "size": "S/16@224"} for m in DEMO[:2]]
    )
    told = ["--datasets", "digits", "--models", models, "--temperature", "0.1"]
    assert main(["draw", "knn", str(tmp_path / "knn"), *told]) == 0
    assert set(texts) == {"by_layer", "families", "best", "details", "all"}
    assert all("Settings: temperature=0.1." in text for text in texts.values())
    with (tmp_path / "knn/digits/sets/all/best.csv").open(newline="") as file:
        assert {row["settings"] for row in csv.DictReader(file)} == {"temperature=0.1"}
    texts.clear()
    told = ["--tables", "knn/digits", "--models", models]
    printed = ["--printed", json.dumps({"knn": "temperature=0.1"})]
    assert main(["collect", str(tmp_path), *told, *printed]) == 0
    assert set(texts) == {"heat_map", "best_depth", "by_layer"}
    assert all("Settings. k-NN: temperature=0.1." in text for text in texts.values())


def _note(texts: dict[str, str], figure: Figure, path: Path) -> None:
    texts[path.stem] = words(figure)
