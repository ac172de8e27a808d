"""From two stores to the table of linear probes, as the command does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests.jobs.labelled_stores import NO_CLS, NORM, TEST, TRAIN, Classes, classes
from vitfeat.analyses.linear_probe.job import write_linear_probe
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.errors import AnalysisError

LAYERS = (1, 3, 4)
WAYS = ("layers", "max_iterations", "threads", "device", "log")

Run = Callable[..., list[ScoreRow]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The rows of the table of two contents."""

    def made(test: Classes = TEST, train: Classes = TRAIN, **options: Any) -> list[ScoreRow]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        paths = [
            content.write_to(folder / name / "m.zarr")
            for name, content in (("digits", test), ("digits-train", train))
        ]
        ways = {key: options.pop(key) for key in WAYS if key in options}
        write_linear_probe(*paths, folder / "m.csv", LinearProbeSettings(**options), **ways)
        return read_scores(folder / "m.csv")

    return made


def expected(
    test: Classes, train: Classes, penalty: float, of: Callable[[Classes, int], np.ndarray]
) -> dict[tuple[int, str], float]:
    """Scores of a penalty by layer, by scikit-learn on names of classes."""
    shares = {}
    for position, layer in enumerate(LAYERS):
        (x, y), (own, truth) = (
            (of(c, position)[c.labels >= 0], np.array([n for n in c.names if n is not None]))
            for c in (train, test)
        )
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-9, max_iter=10000)
        scores = model.fit(scaler.transform(x), y).decision_function(scaler.transform(own))
        for top in (1, 5):
            first = model.classes_[np.argsort(-scores, axis=1)[:, :top]]
            shares[layer, f"top{top}"] = float((first == truth[:, None]).any(axis=1).mean())
    return shares


def values(rows: list[ScoreRow], features: str = "cls") -> dict[tuple[int, str], float]:
    chosen = [r for r in rows if r.features == features and r.score.startswith("top")]
    found = {(r.layer, r.score): r.value for r in chosen}
    assert len(found) == len(chosen)
    return found


@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_scores_of_a_penalty_are_those_of_scikit_learn(run: Run, kind: str) -> None:
    rows = run(features=[kind], regularisation=(0.03,))
    truth = expected(TEST, TRAIN, 0.03, lambda c, position: c.features(kind, position))
    assert values(rows, kind) == pytest.approx(truth)
    assert {(r.task, r.model, r.dataset, r.variant, r.group, r.n) for r in rows} == {
        ("linear_probe", "m", "digits", "penalty=0.03", "", 50)
    }
    assert len(rows) == 3 * 2


def test_behind_the_final_norm(run: Run) -> None:
    rows = run(features=["cls"], regularisation=(0.03,), final_norm=True)
    truth = expected(TEST, TRAIN, 0.03, lambda c, position: NORM(c.features("cls", position)))
    assert values(rows, "cls_norm") == pytest.approx(truth)


def test_the_chosen_penalty_is_the_variant(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A penalty that lets nothing be learnt is never chosen where there is a better one."""
    rows = run(features=["cls"], regularisation=(0.03, 1e6))
    assert {r.variant for r in rows} == {"penalty=0.03"}
    # Both are at an end: of two there is no other.
    assert caplog.messages == [
        "m, digits, cls: the smallest penalty that was tried, 0.03, was the best in layer 1, 3, 4; "
        "a smaller one may be better"
    ]
    assert values(rows) == pytest.approx(values(run(features=["cls"], regularisation=(0.03,))))
    chosen_on = [r for r in rows if r.score == "validation_top1"]
    assert [r.layer for r in chosen_on] == list(LAYERS)
    # A fifth of each of six classes.
    assert {r.n for r in chosen_on} == {
        sum(max(round(0.2 * TRAIN.names.count(c)), 1) for c in "abcdef")
    }
    assert all(0.4 < r.value <= 1 for r in chosen_on)


def test_the_seed_chooses_the_part(run: Run) -> None:
    tables = [run(features=["cls"], regularisation=(0.03, 1.0), seed=s) for s in (0, 0, 1)]
    assert tables[0] == tables[1]
    part = [[r.value for r in t if r.score == "validation_top1"] for t in tables]
    assert part[0] != part[2]


def test_classes_without_a_match_are_errors(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    test = replace(
        TEST,
        order=("x", *TEST.order),
        names=tuple("x" if i % 4 == 0 else n for i, n in enumerate(TEST.names)),
    )
    rows = run(test, features=["cls"], regularisation=(0.03,))
    truth = expected(test, TRAIN, 0.03, lambda c, position: c.features("cls", position))
    assert values(rows) == pytest.approx(truth)
    assert caplog.messages == [
        "m: 13 images of digits count as errors, of classes that digits-train lacks ('x')"
    ]


def test_up_to_five_classes_have_no_top5(run: Run) -> None:
    test, train = (
        classes(list("abcde" * n), "abcde", seed=s, images=i)
        for n, s, i in ((4, 0, "cd"), (8, 1, "ab"))
    )
    rows = run(test, train, features=["cls"])
    assert {r.score for r in rows} == {"top1", "validation_top1"}


def test_what_has_not_converged_is_said(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run(
        features=["cls"],
        layers=[3],
        regularisation=(1e-4, 1e-3),
        max_iterations=2,
    )
    said = [n for n in caplog.messages if "converged" in n]
    assert len(said) == 3
    assert said[0].startswith(
        "m, digits, cls, layer 3: the choice at penalty 0.001 had not converged after 2 iterations "
        "(largest entry of the gradient "
    )
    assert "layer 3: the classifier had not converged" in said[2]


def test_how_it_runs_touches_nothing(run: Run) -> None:
    plain = run(regularisation=(0.03, 0.3))
    assert run(regularisation=(0.3, 0.03), threads=3) == plain
    assert [r for r in plain if r.layer == 3 and r.features == "mean"] == run(
        features=["mean"], layers=[3, 7], regularisation=(0.03, 0.3)
    )


def test_a_model_without_cls_token_has_the_mean(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    test, train = (replace(c, **NO_CLS) for c in (TEST, TRAIN))
    rows = run(test, train, regularisation=(0.1,))
    assert {r.features for r in rows} == {"mean"}
    assert caplog.messages == ["m has no CLS token: cls left out"]


def test_training_images_of_one_class(run: Run) -> None:
    with pytest.raises(AnalysisError, match=r"m, digits, cls, layer 1: .*of 1 class"):
        run(train=replace(TRAIN, names=("a",) * 90))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = TEST.write_to(tmp_path / "digits" / "m.zarr")
    train = TRAIN.write_to(tmp_path / "digits-train" / "m.zarr")
    out, direct, log = (tmp_path / n for n in ("m.csv", "direct.csv", "m.log"))
    words = ["run", "linear_probe", test, "--train", train, "--features", "mean", "--final-norm"]
    words += ["--regularisation", "0.01", "1.0", "--validation", "0.3", "--seed", "4"]
    words += ["--layers", "last", "--threads", "2", "--device", "cpu", "--out", out, "--log", log]
    assert main([str(word) for word in words]) == 0
    settings = LinearProbeSettings(
        features=["mean"], final_norm=True, regularisation=[0.01, 1.0], validation=0.3, seed=4
    )
    write_linear_probe(test, train, direct, settings, layers=[4])
    assert out.read_bytes() == direct.read_bytes()
    assert len(read_scores(out)) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--regularisation", "0.1", "0"], "--regularisation"),
        (["--validation", "1"], "--validation"),
        (["--validation", "many"], "--validation"),
    ],
)
def test_the_command_refuses_nonsense(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "linear_probe", "a", "--train", "b", "--out", "c", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vitfeat: error: {said}")


def test_what_chooses_among_one_penalty_makes_no_difference() -> None:
    keys = ("regularisation", "validation", "seed")
    assert LinearProbeSettings().used(keys).keys() == set(keys)
    alone = LinearProbeSettings(regularisation=[0.1], seed=7)
    assert alone.used(keys) == {"regularisation": (0.1,)}
