"""From two stores to the table of k-NN, as the command does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.jobs.labelled_stores import NO_CLS, NORM, TEST, TRAIN, Classes, classes
from vitfeat.analyses.knn.job import write_knn
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.jobs.layer_tables import join_layers
from vitfeat.tables import write_table

LAYERS = (1, 3, 4)
WAYS = ("layers", "threads", "max_bytes", "device", "log")

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
        settings = KnnSettings(**{"neighbours": (1, 7, 40), **options})
        write_knn(*paths, folder / "m.csv", settings, **ways)
        return read_scores(folder / "m.csv")

    return made


def expected(
    test: Classes,
    train: Classes,
    k: int,
    temperature: float,
    of: Callable[[Classes, int], np.ndarray],
) -> dict[tuple[int, str], float]:
    """Scores by layer of labelled images, by scikit-learn's classifier on names of classes."""
    shares = {}
    for position, layer in enumerate(LAYERS):
        (x, y), (own, truth) = (
            (of(c, position)[c.labels >= 0], np.array([n for n in c.names if n is not None]))
            for c in (train, test)
        )
        model = KNeighborsClassifier(
            k,
            metric="cosine",
            algorithm="brute",
            weights=lambda distance: np.exp((1 - distance) / temperature),
        ).fit(x, y)
        scores = model.predict_proba(own)
        for top in (1, 5):
            hits = 0
            for row, name in zip(scores, truth, strict=True):
                first = np.argsort(-row)[:top]
                hits += any(model.classes_[c] == name and row[c] > 0 for c in first)
            shares[layer, f"top{top}"] = hits / len(truth)
    return shares


def values(rows: list[ScoreRow], features: str, variant: str) -> dict[tuple[int, str], float]:
    chosen = [r for r in rows if (r.features, r.variant) == (features, variant)]
    found = {(r.layer, r.score): r.value for r in chosen}
    assert len(found) == len(chosen)
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_scores_are_those_of_scikit_learn(run: Run, kind: str, dtype: str) -> None:
    test, train = replace(TEST, dtype=dtype), replace(TRAIN, dtype=dtype)
    rows = run(test, train, features=[kind], temperature=0.1)
    for k in (1, 7, 40):
        truth = expected(test, train, k, 0.1, lambda c, position: c.features(kind, position))
        assert values(rows, kind, f"k={k}") == pytest.approx(truth)
    assert len(rows) == 3 * 3 * 2
    assert {(r.task, r.model, r.dataset, r.group, r.n) for r in rows} == {
        ("knn", "m", "digits", "", 50)
    }
    assert len({r.value for r in rows if r.score == "top1"}) > 3


def test_images_without_a_label_and_classes_without_a_match(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the features nor the order of the store's images shift; unknown ones are errors."""
    test = replace(
        TEST,
        order=(*TEST.order, "x"),
        names=tuple(
            None if i % 5 == 0 else "x" if i % 7 == 0 else n for i, n in enumerate(TEST.names)
        ),
    )
    train = replace(
        TRAIN, names=tuple(None if i % 4 == 1 else n for i, n in enumerate(TRAIN.names))
    )
    rows = run(test, train, features=["cls"])
    truth = expected(test, train, 7, 0.07, lambda c, position: c.features("cls", position))
    assert values(rows, "cls", "k=7") == pytest.approx(truth)
    assert {r.n for r in rows} == {40}
    assert len(caplog.messages) == 3
    assert caplog.messages[2].startswith("m: 6 images of digits count as errors")


@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_behind_the_final_norm(run: Run, kind: str) -> None:
    def of(content: Classes, position: int) -> np.ndarray:
        if kind == "cls":
            return NORM(content.features("cls", position))
        return NORM(content.arrays()["spatial"][:, position]).mean(axis=(1, 2))

    rows = run(features=[kind], final_norm=True)
    truth = expected(TEST, TRAIN, 7, 0.07, of)
    assert values(rows, f"{kind}_norm", "k=7") == pytest.approx(truth)
    assert {r.features for r in rows} == {f"{kind}_norm"}
    assert rows != run(features=[kind])


def test_a_store_without_final_norm(run: Run) -> None:
    with pytest.raises(StoreError, match="holds no final norm"):
        run(replace(TEST, final_norm=None), final_norm=True)


def test_more_neighbours_than_images_are_those_that_there_are(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    rows = run(features=["cls"], neighbours=(10, 90, 100, 200))
    assert list(dict.fromkeys(r.variant for r in rows)) == ["k=10", "k=90"]
    assert caplog.messages == [
        "m: digits-train has 90 labelled images: k=90 in place of k=100, k=200"
    ]


def test_how_it_runs_touches_nothing(run: Run) -> None:
    plain = run()
    assert run(max_bytes=1, threads=3) == plain
    assert [r for r in plain if r.layer == 3 and r.features == "mean"] == run(
        features=["mean"], layers=[3]
    )


def test_a_model_without_cls_token_has_the_mean(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    test, train = (replace(c, **NO_CLS) for c in (TEST, TRAIN))
    rows = run(test, train)
    assert {r.features for r in rows} == {"mean"}
    assert caplog.messages == ["m has no CLS token: cls left out"]
    assert run(test, train, features=["cls"]) == []


def test_five_classes_or_fewer_have_top5_too(run: Run) -> None:
    """Classes without votes are no hits, so that the score means something."""
    test, train = (
        classes(list("ab" * n), "ab", seed=s, images=i)
        for n, s, i in ((10, 0, "cd"), (20, 1, "ab"))
    )
    rows = run(test, train, features=["cls"], neighbours=(1, 40))
    one, all_ = values(rows, "cls", "k=1"), values(rows, "cls", "k=40")
    for layer in LAYERS:
        assert one[layer, "top1"] == one[layer, "top5"] < 1
        assert all_[layer, "top5"] == 1


def test_features_that_are_not_finite_say_where(run: Run) -> None:
    class Broken(Classes):
        def arrays(self) -> dict[str, np.ndarray]:
            found = super().arrays()
            found["cls"][17, 1] = np.inf
            return found

    broken = Broken(**{k: getattr(TRAIN, k) for k in TRAIN.__dataclass_fields__})
    with pytest.raises(
        AnalysisError, match=r"m, digits, cls, layer 3: .*image 17 of the bank are not finite"
    ):
        run(train=broken)


# --- Layers as jobs of their own ---


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return (
        TEST.write_to(tmp_path / "digits" / "m.zarr"),
        TRAIN.write_to(tmp_path / "digits-train" / "m.zarr"),
    )


def test_tables_of_layers_are_joined_to_that_of_all(
    stores: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = KnnSettings(neighbours=(1, 7))
    write_knn(*stores, tmp_path / "all.csv", settings)
    # Layers that the model does not have are in no table's way.
    tables = [tmp_path / f"{i}.csv" for i in range(3)]
    for table, layers in zip(tables, ([6, 7], [3], [0, 1, 2, 4]), strict=True):
        write_knn(*stores, table, settings, layers=layers)
    assert caplog.messages == [f"m: layer {n} is not stored; nothing to do" for n in (6, 7, 0, 2)]
    join_layers(tables, stores[0], tmp_path / "joined.csv")
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
    with pytest.raises(AnalysisError, match=r"no table of layer 1, 4 .*; set layer_jobs: false"):
        join_layers(tables[:2], stores[0], tmp_path / "some.csv")
    with pytest.raises(AnalysisError, match=r"1.csv and .*1.csv both have layer 3"):
        join_layers([*tables, tables[1]], stores[0], tmp_path / "some.csv")
    assert not (tmp_path / "some.csv").exists()


def test_tables_without_rows_are_joined_to_one(stores: tuple[Path, Path], tmp_path: Path) -> None:
    write_table(tmp_path / "1.csv", ScoreRow, [])
    join_layers([tmp_path / "1.csv"], stores[0], tmp_path / "joined.csv")
    assert read_scores(tmp_path / "joined.csv") == []


# --- The commands ---


def test_the_command(
    stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, direct, log = (tmp_path / n for n in ("m.csv", "direct.csv", "m.log"))
    words = ["run", "knn", stores[0], "--train", stores[1], "--features", "mean", "--final-norm"]
    words += ["--neighbours", "3", "200", "--temperature", "0.2", "--layers", "last", "1"]
    words += ["--threads", "2", "--device", "cpu", "--max-mb", "1", "--out", out, "--log", log]
    assert main([str(word) for word in words]) == 0
    settings = KnnSettings(features=["mean"], final_norm=True, neighbours=[3, 200], temperature=0.2)
    write_knn(*stores, direct, settings, layers=[1, 4])
    assert out.read_bytes() == direct.read_bytes()
    assert len(read_scores(out)) == 2 * 2 * 2
    assert log.read_text("utf-8") == (
        "m: digits-train has 90 labelled images: k=90 in place of k=200\n"
    )
    assert capsys.readouterr() == ("", "")


def test_the_command_that_joins(stores: tuple[Path, Path], tmp_path: Path) -> None:
    tables = [tmp_path / f"{layer}.csv" for layer in LAYERS]
    for layer, table in zip(LAYERS, tables, strict=True):
        words = ["run", "knn", stores[0], "--train", stores[1], "--layers", layer]
        assert main([str(w) for w in (*words, "--device", "cpu", "--out", table)]) == 0
    join = ["run", "join_layers", *(table.name for table in tables), "--store", stores[0]]
    assert main([str(w) for w in (*join, "--out", "m.csv", "--below", tmp_path)]) == 0
    assert {row.layer for row in read_scores(tmp_path / "m.csv")} == set(LAYERS)


@pytest.mark.parametrize("words", [["--temperature", "0"], ["--temperature", "nan"]])
def test_the_command_refuses_nonsense(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "knn", "a", "--train", "b", "--out", "c", *words]) == 1
    assert "--temperature" in capsys.readouterr().err
