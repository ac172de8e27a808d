"""Tables as the page reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitfeat.analyses.rows import AttentionRow, CkaRow, ResidualNormRow, ScoreRow
from vitfeat.explorer import tables
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import json_bytes
from vitfeat.tables import write_table

NAN = float("nan")


@pytest.fixture
def found(tmp_path: Path) -> Results:
    for folder in ("knn/d", "attention/d", "clustering/d", "residual/d", "cka/d/cls", "knn/d/sets"):
        (tmp_path / folder).mkdir(parents=True)
    return Results(tmp_path)


def curve(found: Results, analysis: str) -> list[tuple[str, list[int], list[float | None]]]:
    curves = tables.scores(found)["curves"]
    return [
        (one["score"], one["layers"], one["values"])
        for one in curves
        if one["analysis"] == analysis
    ]


def test_scores_are_of_whole_datasets_and_nan_is_none(found: Results) -> None:
    rows = [
        ScoreRow("knn", "m", "d", layer, "cls", "k=20", "top1", group, 9, value)
        for layer, group, value in ((1, "", 0.5), (0, "", NAN), (0, "cat", 0.9))
    ]
    write_table(found.folder / "knn/d/m.csv", ScoreRow, rows)
    assert curve(found, "knn") == [("top1 · cls · k=20", [0, 1], [None, 0.5])]
    json_bytes(tables.scores(found))


def test_attention_is_averaged_over_heads_and_clusters_are_those_over_seeds(found: Results) -> None:
    write_table(
        found.folder / "attention/d/m.csv",
        AttentionRow,
        [
            AttentionRow("m", "d", 0, head, "entropy", "nats", "", None, 9, mean, 0.0)
            for head, mean in ((0, 1.0), (1, 2.0))
        ],
    )
    write_table(
        found.folder / "clustering/d/m.csv",
        ScoreRow,
        [
            ScoreRow("clustering", "m", "d", 0, "cls", "k=3", score, group, 9, value)
            for score, group, value in (
                ("nmi", "", 0.6),
                ("nmi", "seed=0", 0.5),
                ("nmi", "seed=1", 0.7),
                ("nmi_shuffled", "", 0.1),
            )
        ],
    )
    write_table(
        found.folder / "residual/d/m.norms.csv",
        ResidualNormRow,
        [ResidualNormRow("m", "d", "attn", "cls", 2, 9, 1.5, 0.1)],
    )
    assert curve(found, "attention") == [("entropy · nats, mean of heads", [0], [1.5])]
    assert curve(found, "clustering") == [
        ("nmi · cls · k=3", [0], [0.6]),
        ("nmi_shuffled · cls · k=3", [0], [0.1]),
    ]
    assert curve(found, "residual") == [("attn branch · cls, skip / branch norm", [2], [1.5])]
    heads = tables.heads(found, "d", "m")
    assert heads["layers"] == [0]
    assert heads["metrics"] == [{"metric": "entropy", "unit": "nats", "values": [[1.0, 2.0]]}]


def test_a_table_that_cannot_be_read_is_said_and_the_others_are_there(found: Results) -> None:
    row = ScoreRow("knn", "m", "d", 0, "cls", "", "top1", "", 9, 0.5)
    write_table(found.folder / "knn/d/m.csv", ScoreRow, [row])
    (found.folder / "knn/d/n.csv").write_text("no,table\n1,2\n")
    (found.folder / "knn/d/sets/m.csv").write_text("no,table\n1,2\n")
    scores = tables.scores(found)
    assert len(scores["curves"]) == 1
    assert len(scores["remarks"]) == 1
    assert "n.csv" in scores["remarks"][0]


def test_cka_of_a_pair_is_a_matrix_for_each_estimator(found: Results) -> None:
    path = found.folder / "cka/d/cls/a--b.csv"
    values = {(3, 0): 0.1, (3, 1): NAN, (4, 0): 0.3, (4, 1): 0.4}
    write_table(
        path,
        CkaRow,
        [
            CkaRow("a", layer_a, "b", layer_b, estimator, "cls", "cls", "cls", 9, value)
            for estimator in ("debiased", "biased")
            for (layer_a, layer_b), value in values.items()
        ],
    )
    (found.folder / "cka/d/cls/a--c.csv").write_text("x\n")
    cka = tables.cka(found, "d", "cls")
    assert list(cka["estimators"]) == ["debiased", "biased"]
    (pair,) = cka["estimators"]["debiased"]
    assert (pair["a"], pair["b"]) == ("a", "b")
    assert (pair["layers_a"], pair["layers_b"]) == ([3, 4], [0, 1])
    assert pair["values"] == [[0.1, None], [0.3, 0.4]]
    assert len(cka["remarks"]) == 1
