from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitfeat.analyses.cka.compute import cka
from vitfeat.analyses.cka.job import cka_rows
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.rows import CkaRow, read_cka
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import GramFile
from vitfeat.tables import write_table

ROWS = [
    CkaRow("a", 0, "b", 11, "debiased", "cls", "cls", "mean", 50, 0.1 + 0.2),
    CkaRow('an "odd", name', 3, "b", 0, "paper", "all", "all", "all", 50, -1e-17),
    CkaRow("a", 0, "c", 0, "biased", "cls", "mean", "cls", 50, math.nan),
]
HEADER = "model_a,layer_a,model_b,layer_b,estimator,tokens,made_from_a,made_from_b,n_images,cka\n"
LINE = "a,0,b,1,debiased,cls,cls,cls,5,0.5\n"


def test_round_trip(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", CkaRow, iter(ROWS))
    found = read_cka(tmp_path / "t.csv")
    assert found[:2] == ROWS[:2]
    assert found[2][:-1] == ROWS[2][:-1]
    assert math.isnan(found[2].cka)


def test_text(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", CkaRow, [ROWS[0], ROWS[2]])
    assert (tmp_path / "t.csv").read_bytes().decode() == (
        HEADER
        + "a,0,b,11,debiased,cls,cls,mean,50,0.30000000000000004\n"
        + "a,0,c,0,biased,cls,mean,cls,50,nan\n"
    )


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", CkaRow, ROWS)
    before = (tmp_path / "t.csv").read_text()
    with pytest.raises(ZeroDivisionError):
        write_table(tmp_path / "t.csv", CkaRow, (ROWS[1 // index] for index in (1, 0)))
    assert (tmp_path / "t.csv").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_table_names_every_value(
    make_file: Callable[..., GramFile], rng: np.random.Generator
) -> None:
    layers = [rng.normal(size=(5, 2)).astype(np.float32) for _ in range(3)]
    a, b = make_file(layers[:2], "a"), make_file(layers, "b")
    rows = list(cka_rows(a, b, CkaSettings(estimators=["biased", "debiased"])))
    assert rows[1][:-1] == ("a", 0, "b", 1, "biased", "cls", "cls", "cls", 5)
    for start, estimator in ((0, "biased"), (6, "debiased")):
        values = cka(a, b, estimator=estimator)
        for row, (place, value) in zip(rows[start:], np.ndenumerate(values), strict=False):
            assert row.estimator == estimator
            assert ((row.layer_a, row.layer_b), row.cka) == (place, value)
    assert len(rows) == 12


def test_table_says_what_each_side_is_made_from(
    make_file: Callable[..., GramFile], rng: np.random.Generator
) -> None:
    layers = [rng.normal(size=(5, 2)).astype(np.float32)]
    a, b = make_file(layers, "a"), make_file(layers, "b", made_from="mean")
    (row,) = cka_rows(a, b, CkaSettings())
    assert (row.tokens, row.made_from_a, row.made_from_b) == ("cls", "cls", "mean")
    (row,) = cka_rows(b, a, CkaSettings())
    assert (row.tokens, row.made_from_a, row.made_from_b) == ("cls", "mean", "cls")


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", CkaRow, [])
    assert (tmp_path / "t.csv").read_text() == HEADER
    assert read_cka(tmp_path / "t.csv") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("", "no CKA table"),
        ("model,layer,cka\n", "no CKA table"),
        (HEADER + "a,0,b\n", "line 2"),
        # From before the tables said what the sides are made from.
        ("model_a,layer_a,model_b,layer_b,estimator,tokens,n_images,cka\n", "compute it anew"),
        (HEADER + LINE + LINE.replace("a,0", "a,x"), "line 3"),
        (HEADER + LINE.replace("0.5", ""), "line 2"),
    ],
)
def test_unreadable_tables_fail(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AnalysisError, match=message) as caught:
        read_cka(path)
    assert str(path) in str(caught.value)
