from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.figures.made_tables import DEMO, Made
from tests.figures.made_tasks import task_rows
from vitfeat.analyses.headlines import (
    Column,
    best,
    collect,
    headline_columns,
    headline_rows,
)
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)


def row(layer: int, value: float, **more: object) -> ScoreRow:
    plain = ScoreRow("knn", "a", "photos", layer, "cls", "k=20", "top1", "", 50, value)
    return plain._replace(**more)


def slow_best(rows: Sequence[ScoreRow], key: tuple[str, ...]) -> tuple[int, float] | None:
    """Layer and value of the greatest of one kind of rows, by going through all layers."""
    found: tuple[int, float] | None = None
    for layer in sorted({r.layer for r in rows}):
        for r in rows:
            mine = (r.task, r.dataset, r.model, r.features, r.variant, r.score)
            here = mine == key and r.layer == layer and not r.group
            if here and not math.isnan(r.value) and (found is None or r.value > found[1]):
                found = layer, r.value
    return found


def test_every_task_has_a_headline_in_the_order_of_the_figures() -> None:
    assert list(scored()) == [
        *("clustering", "knn", "linear_probe", "retrieval"),
        *("video", "keypoints", "regions", "saliency"),
    ]
    for scoring in scored().values():
        assert scoring.is_ranked(scoring.headline.score)
        assert not any(map(scoring.is_ranked, scoring.chance.values()))


@pytest.mark.parametrize("task", [task for task in scored() if task != "linear_probe"])
def test_best_layers_are_those_that_loops_find(task: str) -> None:
    rows = task_rows(task, [*DEMO[:2], NO_CLS])
    found = best(rows)
    keys = {(r.task, r.dataset, r.model, r.features, r.variant, r.score): r for r in found}
    assert len(keys) == len(found)
    expected = {
        (r.task, r.dataset, r.model, r.features, r.variant, r.score)
        for r in rows
        if not r.group and scored()[task].is_ranked(r.score)
    }
    assert set(keys) == expected
    for key, one in keys.items():
        assert (one.layer, one.value) == slow_best(rows, key)
        assert one.depth == one.layer / 5


def test_ties_go_to_the_earliest_layer_whatever_the_order() -> None:
    rows = [row(3, 0.5), row(1, 0.5), row(2, 0.4), row(0, 0.1)]
    (found,) = best(rows)
    assert (found.layer, found.value, found.depth) == (1, 0.5, 1 / 3)
    (found,) = best(rows[::-1])
    assert found.layer == 1


def test_nan_is_no_value_and_depth_counts_all_layers() -> None:
    rows = [row(0, 0.2), row(1, math.nan), row(2, 0.1), row(4, math.nan)]
    (found,) = best(rows)
    assert (found.layer, found.depth) == (0, 0)
    (found,) = best([*rows, row(3, 0.3)])
    assert (found.layer, found.depth) == (3, 3 / 4)
    assert best([row(0, math.nan), row(1, math.nan)]) == []
    assert best([]) == []


def test_depth_ends_at_0_and_1() -> None:
    (found,) = best([row(0, 0.2)])
    assert found.depth == 0
    (found,) = best([row(0, 0.2), row(1, 0.3)])
    assert found.depth == 1


def test_groups_are_left_out() -> None:
    rows = [row(0, 0.2), row(0, 0.9, group="cat"), row(1, 0.1)]
    assert list(collect(rows)) == [rows[0], rows[2]]
    (found,) = best(rows)
    assert found.value == 0.2


def test_variants_that_layers_choose_are_one() -> None:
    rows = [
        row(at, value, task="linear_probe", variant=f"penalty={penalty}")
        for at, (value, penalty) in enumerate([(0.1, "0.1"), (0.7, "0.01"), (0.3, "0.1")])
    ]
    (found,) = best(rows)
    assert (found.layer, found.variant, found.value) == (1, "penalty=0.01", 0.7)
    assert headline_columns(rows) == [Column("linear_probe", "photos", "top1", "", "cls")]
    (cells,) = headline_rows([found], headline_columns([found]))
    assert cells == {"a": found}


def test_a_value_given_twice_is_an_error() -> None:
    with pytest.raises(AnalysisError, match=r"knn of a on photos has two values of top1 \(cls, k="):
        best([row(0, 0.1), row(1, 0.2), row(1, 0.2)])
    probe = {"task": "linear_probe"}
    twice = [row(0, 0.1, variant=f"penalty={penalty}", **probe) for penalty in (1, 2)]
    with pytest.raises(AnalysisError, match="in layer 0: compute its table again"):
        best(twice)


def test_scores_that_say_something_else_rank_nothing() -> None:
    ranked = {
        "knn": {"top1", "top5"},
        "linear_probe": {"top1", "top5"},
        "retrieval": {"map", "mp@1", "mp@10", "ap"},
        "video": {"jf_mean", "j_mean", "j_recall", "f_mean", "f_recall"},
        "keypoints": {"pck_image", "pck_point", "pck_image_category_mean"},
        "regions": {"nmi", "ari", "purity"},
        "saliency": {"iou"},
    }
    others = {
        *("j_decay", "f_decay", "ties", "outside", "iou_all", "iou_chance"),
        *("chance_point", "chance_image", "chance_point_category_mean"),
    }
    for task, mine in ranked.items():
        assert {score for score in others | mine if scored()[task].is_ranked(score)} == mine


def test_decays_ties_and_chance_choose_no_layer() -> None:
    assert {one.score for one in best(task_rows("video", DEMO[:1]))} == {
        *("jf_mean", "j_mean", "j_recall", "f_mean", "f_recall")
    }
    assert {one.score for one in best(task_rows("keypoints", DEMO[:1]))} == {
        *("pck_image", "pck_point")
    }


def test_headlines_prefer_variants_and_features_in_their_order() -> None:
    every = [
        r
        for task in scored()
        for r in task_rows(task, DEMO[:2], "b") + task_rows(task, DEMO[:1], "a")
    ]
    columns = headline_columns(every)
    assert [(c.task, c.dataset) for c in columns] == [
        (task, dataset)
        for task in scored()
        for dataset in ("b", "a")
        for _ in range(2 if task == "regions" else 1)
    ]
    assert [(c.score, c.variant, c.features) for c in columns if c.dataset == "a"] == [
        ("nmi", "", "cls"),
        ("top1", "k=20", "cls"),
        ("top1", "", "cls"),
        ("map", "medium", "cls"),
        ("jf_mean", "", "spatial"),
        ("pck_image", "0.1", "spatial"),
        ("nmi", "object", "regions"),
        ("nmi", "part", "regions"),
        ("iou", "best_head", "attn_cls"),
    ]


def test_other_variants_stand_in_where_the_preferred_are_not_there() -> None:
    (column,) = headline_columns([row(0, 0.1, variant=f"k={k}") for k in (7, 5, 100)])
    assert column.variant == "k=100"
    (column,) = headline_columns([row(0, 0.1, variant=f"k={k}") for k in (7, 5)])
    assert column.variant == "k=7"
    (column,) = headline_columns([row(0, 0.1, features=kind) for kind in ("mean", "cls_norm")])
    assert column.features == "cls_norm"


def test_a_model_without_cls_has_its_mean() -> None:
    found = best(task_rows("knn", [DEMO[0], NO_CLS]))
    columns = headline_columns(found)
    (cells,) = headline_rows(found, columns)
    assert columns[0].features == "cls"
    assert {model: one.features for model, one in cells.items()} == {
        "demo-supervised": "cls",
        "siglip": "mean",
    }
    (by_itself,) = headline_columns(best(task_rows("knn", [NO_CLS])))
    assert by_itself.features == "mean"
