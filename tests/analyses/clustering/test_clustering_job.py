"""From a store to the table of scores, as the command does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits

from tests.store.filled import GEOMETRY, Content
from vitfeat.analyses.clustering.job import write_clustering
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.numerics.cluster_scores import shuffled
from vitfeat.store.create import Rows
from vitfeat.store.layout import Layout, plan_layout

LAYERS = GEOMETRY.layers


@dataclass(frozen=True)
class Labelled(Content):
    """A store of images with chosen labels, some of which its patterns may be kept for."""

    taps: tuple[str, ...] = ("cls", "spatial", "attention_mean")
    n_images: int = 60
    labels: tuple[int, ...] = tuple(i % 5 * 3 for i in range(60))
    patterns_of: tuple[int, ...] | None = None

    @property
    def layout(self) -> Layout:
        kept = {} if self.patterns_of is None else {"attention_mean": self.patterns_of}
        return plan_layout(self.geometry, self.taps, self.n_images, self.dtype, kept)

    @property
    def rows(self) -> Rows:
        return Rows(
            image_id=[f"{i}.png" for i in range(self.n_images)],
            label=np.array(self.labels, dtype=np.int64),
            classes={label: f"class {label}" for label in set(self.labels) - {-1}},
            skipped=[],
        )

    def features(self, kind: str, layer: int) -> np.ndarray:
        """What is clustered, from what was written and the definitions: float32 (entry, ...)."""
        if kind == "mean":
            spatial = self.arrays()["spatial"][:, layer].astype(np.float64)
            summed = sum(spatial[:, y, x] for y in range(2) for x in range(3))
            return (summed / 6).astype(np.float32)
        array = self.arrays()[kind][:, layer].astype(np.float32)
        return array.reshape(len(array), -1)


CONTENT = Labelled()
UNLABELLED = replace(CONTENT, labels=tuple(-1 if i % 4 == 0 else i % 3 for i in range(60)))

Cluster = Callable[..., list[ScoreRow]]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """The rows of the table of a store's content."""

    def run(content: Content, **options: Any) -> list[ScoreRow]:
        number = len(list(tmp_path.iterdir()))
        path = tmp_path / str(number) / "digits" / "m.zarr"
        content.write(path)
        ways = {key: options.pop(key) for key in ("threads", "max_bytes", "log") if key in options}
        settings = ClusteringSettings(**{"shuffled": False} | options)
        write_clustering(path, tmp_path / f"{number}.csv", settings, **ways)
        return read_scores(tmp_path / f"{number}.csv")

    return run


def values(
    rows: Sequence[ScoreRow], *, kind: str = "cls", behind: str = ""
) -> dict[tuple[int, int, str], float]:
    """The scores of seeds; those of the empty group are their means."""
    chosen = [
        r for r in rows if r.features == kind and r.score.endswith("_shuffled") == (behind != "")
    ]
    found = {
        (r.layer, int(r.group.removeprefix("seed=")), r.score.removesuffix(behind)): r.value
        for r in chosen
        if r.group
    }
    means = {(r.layer, r.score.removesuffix(behind)): r.value for r in chosen if not r.group}
    assert len(found) + len(means) == len(chosen)
    for (layer, score), mean in means.items():
        of_seeds = [v for (at, _, name), v in found.items() if (at, name) == (layer, score)]
        assert mean == pytest.approx(np.mean(of_seeds), abs=1e-15)
    return found


def expected(
    content: Labelled,
    kind: str,
    k: int,
    seeds: Sequence[int],
    entries: np.ndarray,
    labels: np.ndarray,
) -> dict[tuple[int, int, str], float]:
    """Scores of the labels of some entries of what is clustered, by scikit-learn and a count."""
    found = {}
    for position, layer in enumerate(LAYERS):
        for seed in seeds:
            with threadpool_limits(1):
                fit = KMeans(k, n_init=4, random_state=seed).fit(
                    content.features(kind, position)[entries]
                )
            majorities = [np.bincount(labels[fit.labels_ == c]).max() for c in set(fit.labels_)]
            found[layer, seed, "nmi"] = normalized_mutual_info_score(labels, fit.labels_)
            found[layer, seed, "ari"] = adjusted_rand_score(labels, fit.labels_)
            found[layer, seed, "purity"] = sum(majorities) / len(labels)
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["cls", "mean", "attention_mean"])
def test_scores_are_those_of_scikit_learn(cluster: Cluster, kind: str, dtype: str) -> None:
    content = replace(CONTENT, dtype=dtype)
    rows = cluster(content, features=[kind], n_init=4, seeds=2, seed=7, threads=2)
    labels = np.array(content.labels)
    truth = expected(content, kind, 5, (7, 8), np.arange(60), labels)
    assert values(rows, kind=kind) == pytest.approx(truth, abs=1e-12)
    assert {(r.task, r.model, r.dataset, r.features) for r in rows} == {
        ("clustering", "m", "digits", kind)
    }
    assert {(r.n, r.variant) for r in rows} == {(60, "k=5")}


@pytest.mark.parametrize("kind", ["cls", "mean", "attention_mean"])
def test_images_without_a_label_are_left_out(
    cluster: Cluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = cluster(UNLABELLED, features=[kind], n_init=4, seeds=1)
    entries = np.flatnonzero(np.array(UNLABELLED.labels) != -1)
    truth = expected(UNLABELLED, kind, 3, (0,), entries, np.array(UNLABELLED.labels)[entries])
    assert values(rows, kind=kind) == pytest.approx(truth, abs=1e-12)
    assert {(r.n, r.variant) for r in rows} == {(45, "k=3")}
    assert caplog.messages == ["m: 15 of 60 images without a label: left out"]


def test_patterns_of_some_images(cluster: Cluster) -> None:
    """A tap may be kept for some images: those are clustered, by their own labels."""
    kept = tuple(range(1, 60, 2))
    content = replace(UNLABELLED, patterns_of=kept)
    rows = cluster(content, features=["cls", "attention_mean"], n_init=4, seeds=1)
    labels = np.array(content.labels)[list(kept)]
    entries = np.flatnonzero(labels != -1)
    truth = expected(content, "attention_mean", 3, (0,), entries, labels[entries])
    assert values(rows, kind="attention_mean") == pytest.approx(truth, abs=1e-12)
    assert {(r.features, r.n) for r in rows} == {
        ("cls", 45),
        ("attention_mean", len(entries)),
    }


def test_patterns_of_a_chosen_layer(cluster: Cluster) -> None:
    both = {"features": ["cls", "attention_mean"], "n_init": 1, "seeds": 1}
    rows = cluster(CONTENT, pattern_layers="last", **both)
    assert {r.layer for r in rows if r.features == "cls"} == set(LAYERS)
    assert {r.layer for r in rows if r.features == "attention_mean"} == {4}
    every = values(cluster(CONTENT, **both), kind="attention_mean")
    assert values(rows, kind="attention_mean").items() <= every.items()
    with pytest.raises(StoreError, match=r"layer 0 is not stored; it has \[1, 3, 4\]"):
        cluster(CONTENT, pattern_layers=[4, 0], **both)


def test_shuffled_stand_beside_the_true_ones(cluster: Cluster) -> None:
    rows = cluster(UNLABELLED, features=["cls"], n_init=4, seeds=2, shuffled=True)
    entries = np.flatnonzero(np.array(UNLABELLED.labels) != -1)
    labels = np.array(UNLABELLED.labels)[entries]
    assert len(rows) == 3 * len(values(rows))
    found = values(rows, behind="_shuffled")
    for layer in LAYERS:
        for seed in (0, 1):
            truth = expected(
                UNLABELLED, "cls", 3, (seed,), entries, shuffled(labels, (seed, layer))
            )
            for score in ("nmi", "ari", "purity"):
                assert found[layer, seed, score] == pytest.approx(truth[layer, seed, score])


def test_shuffled_touch_nothing_else(cluster: Cluster) -> None:
    options: dict[str, Any] = {"features": ["cls", "mean"], "n_init": 1, "seeds": 2}
    without = cluster(CONTENT, **options)
    rows = cluster(CONTENT, shuffled=True, **options)
    assert [r for r in rows if not r.score.endswith("_shuffled")] == without


@pytest.mark.parametrize("changed", [{"threads": 3}, {"max_bytes": 1, "threads": 2}])
def test_how_it_runs_touches_nothing(cluster: Cluster, changed: dict[str, Any]) -> None:
    options: dict[str, Any] = {
        "features": ["cls", "mean", "attention_mean"],
        "n_init": 1,
        "seeds": 3,
    }
    assert cluster(UNLABELLED, **options, **changed) == cluster(UNLABELLED, **options)


def test_a_seed_gives_the_same_wherever_it_stands(cluster: Cluster) -> None:
    options: dict[str, Any] = {"features": ["cls"], "n_init": 1, "shuffled": True}
    four = cluster(CONTENT, seeds=4, **options)
    one = cluster(CONTENT, seeds=1, seed=2, **options)
    assert [r for r in four if r.group == "seed=2"] == [r for r in one if r.group]
    assert sorted({r.group for r in four}) == ["", "seed=0", "seed=1", "seed=2", "seed=3"]


def test_clusters_may_be_more_or_fewer_than_classes(cluster: Cluster) -> None:
    for k in (2, 9):
        rows = cluster(CONTENT, features=["cls"], clusters=k, n_init=4, seeds=1)
        truth = expected(CONTENT, "cls", k, (0,), np.arange(60), np.array(CONTENT.labels))
        assert values(rows) == pytest.approx(truth, abs=1e-12)
        assert {r.variant for r in rows} == {f"k={k}"}


# --- What a model lacks, and errors ---


WITHOUT_CLS = replace(
    CONTENT,
    geometry=replace(GEOMETRY, has_cls=False, n_registers=0),
    taps=("spatial", "attention_mean"),
)


def test_a_model_without_cls_token_has_the_others(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    rows = cluster(WITHOUT_CLS, features=["cls", "mean"], n_init=4, seeds=1)
    truth = expected(WITHOUT_CLS, "mean", 5, (0,), np.arange(60), np.array(CONTENT.labels))
    assert values(rows, kind="mean") == pytest.approx(truth, abs=1e-12)
    assert {r.features for r in rows} == {"mean"}
    assert caplog.messages == ["m has no CLS token: cls left out"]


def test_nothing_to_cluster_is_a_table_without_rows(cluster: Cluster) -> None:
    assert cluster(WITHOUT_CLS, features=["cls"]) == []


def test_equal_images_are_noted(
    cluster: Cluster, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    class Equal(Labelled):
        def arrays(self) -> dict[str, np.ndarray]:
            return {name: np.ones_like(values) for name, values in super().arrays().items()}

    rows = cluster(Equal(), features=["cls"], n_init=1, seeds=1)
    assert {(r.score, r.value) for r in rows} == {("nmi", 0.0), ("ari", 0.0), ("purity", 0.2)}
    assert caplog.messages == [
        f"m, cls, layer {layer}: 1 of 5 clusters found, since no more images differ"
        for layer in LAYERS
    ]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (replace(CONTENT, labels=(-1,) * 60), {}, "none of 60 images has a label"),
        (replace(CONTENT, labels=(4,) * 60), {}, "cls and a label, of 'class 4'; .*per_class"),
        (CONTENT, {"clusters": 61}, "60 images with cls and a label, fewer than the 61 clusters"),
        (
            replace(CONTENT, patterns_of=(0, 5)),
            {"features": ["attention_mean"]},
            "2 images with attention_mean and a label, of 'class 0'",
        ),
        (
            replace(CONTENT, labels=(-1,) * 30 + tuple(range(30)), patterns_of=(0, 1)),
            {"features": ["attention_mean"]},
            "0 images with attention_mean and a label, of no class",
        ),
        (
            replace(CONTENT, taps=("spatial",)),
            {},
            r"no cls in this store \(it holds spatial\).*analyses.clustering.features",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    cluster: Cluster, content: Labelled, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnalysisError, match=words):
        cluster(content, **options)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out, log = (tmp_path / n for n in ("digits/m.zarr", "out/m.csv", "m.log"))
    UNLABELLED.write(store)
    arguments = ["--features", "mean", "attention_mean", "--pattern-layers", "first", "3"]
    numbers = ["--clusters", "4", "--n-init", "2", "--seeds", "2", "--seed", "5", "--threads", "2"]
    command = [
        "run",
        "clustering",
        store,
        *arguments,
        *numbers,
        "--shuffled",
        "--out",
        out,
        "--log",
        log,
    ]
    assert main([str(a) for a in command]) == 0
    direct = tmp_path / "direct.csv"
    settings = ClusteringSettings(
        features=("mean", "attention_mean"),
        pattern_layers=("first", 3),
        clusters=4,
        n_init=2,
        seeds=2,
        seed=5,
    )
    write_clustering(store, direct, settings)
    assert out.read_bytes() == direct.read_bytes()
    assert len(read_scores(out)) == (3 + 2) * (1 + 2) * 2 * 3
    assert log.read_text("utf-8") == "m: 15 of 60 images without a label: left out\n"
    assert capsys.readouterr() == ("", "")


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "digits" / "m.zarr", tmp_path / "m.csv"
    replace(CONTENT, labels=(-1,) * 60).write(store)
    assert main(["run", "clustering", str(store), "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: ")
    assert "none of 60 images has a label" in line
    assert not out.exists()
