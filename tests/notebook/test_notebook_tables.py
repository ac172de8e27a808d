"""The functions of arrays give the numbers of the jobs' tables, from what the stores hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vitfeat
from tests.analyses.attention_maps.attended import PATCH, random_attention, write_attended
from tests.analyses.keypoints.test_keypoints_job import (
    Dataset,
    content_of,
    dataset,  # noqa: F401 - a fixture
)
from tests.analyses.retrieval.test_retrieval_job import LETTERS, RELEVANCE, Places
from tests.analyses.video.filmed import view_named, write_films, write_store
from tests.jobs.labelled_stores import TEST, TRAIN, Classes
from vitfeat.analyses.attention.job import write_attention
from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.cka import compute
from vitfeat.analyses.cka.gram_job import write_grams
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.job import write_clustering
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.keypoints.job import write_keypoints
from vitfeat.analyses.keypoints.pairs import find_points, open_points
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.knn.job import write_knn
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.linear_probe.job import write_linear_probe
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.retrieval.job import write_retrieval
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.rows import ScoreRow, read_attention, read_scores
from vitfeat.analyses.video.job import write_video
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.data.annotations import PointRow, RelevanceRow
from vitfeat.data.masks import read_mask
from vitfeat.numerics.gramfile import GramFile
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table


def _written(folder: Path, name: str, content: Classes) -> Path:
    return content.write_to(folder / name / "m.zarr")


def _of_layer(rows: list[ScoreRow], layer: int) -> dict[tuple[str, str], float]:
    """Values by variant and score, of no group."""
    return {(r.variant, r.score): r.value for r in rows if r.layer == layer and not r.group}


def test_cka(tmp_path: Path) -> None:
    path = _written(tmp_path, "digits", TRAIN)
    write_grams(path, tmp_path / "m.safetensors", CkaSettings(tokens=("cls",)))
    grams = GramFile(tmp_path / "m.safetensors")
    tokens = vitfeat.open(path)["cls"]
    layers = [tokens[:, position] for position in range(tokens.shape[1])]
    for estimator in compute.ESTIMATORS:
        expected = compute.cka(grams, grams, estimator=estimator, batch_size=32)
        found = vitfeat.cka(layers, layers, estimator=estimator, batch_size=32)
        assert np.array_equal(found, expected)


def test_attention_metrics(tmp_path: Path) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = random_attention(5, 2, 3, tokens, null=True)
    path = write_attended(tmp_path / "d/m.zarr", attention, tokens)
    write_attention(path, tmp_path / "m.csv", tmp_path / "m.nc", AttentionSettings(high_norm=None))
    rows = read_attention(tmp_path / "m.csv")
    found = vitfeat.attention_metrics(attention, (2, 3), n_registers=1, patch_size=PATCH)
    counted = 1 - found["n_null"] / 6
    seen = set()
    for row in rows:
        if row.metric in found:
            values = found[row.metric][:, row.layer]
            weights = np.ones(values.shape)
            if row.metric.startswith("offset_"):
                # Queries that attend to nothing spatial have no offset: an image weighs by others.
                values, weights = np.nan_to_num(values), counted[:, row.layer]
            mean = (values * weights).sum(axis=0) / weights.sum(axis=0)
            value = mean if row.head is None else mean[row.head]
            assert row.mean == pytest.approx(float(value), rel=3e-5, abs=2e-6), row
            seen.add(row.metric)
    assert seen == set(found)


def test_cluster_scores(tmp_path: Path) -> None:
    path = _written(tmp_path, "digits", TRAIN)
    write_clustering(path, tmp_path / "m.csv", ClusteringSettings(features=("cls",)))
    rows = [r for r in read_scores(tmp_path / "m.csv") if r.group]
    store = vitfeat.open(path)
    for position, layer in enumerate(store.layers):
        found = vitfeat.cluster_scores(store["cls"][:, position], store.labels)
        for score, value in found.items():
            seeds = [r.value for r in rows if (r.layer, r.score) == (layer, score)]
            assert len(seeds) == 3
            assert value == np.mean(seeds)


def _named(path: Path) -> tuple[FeatureStore, list[str]]:
    """A store, and the names of its images' classes."""
    store = vitfeat.open(path)
    return store, [store.classes[label] for label in store.labels.tolist()]


def test_knn_and_linear_probe(tmp_path: Path) -> None:
    test_path, train_path = _written(tmp_path, "digits", TEST), _written(tmp_path, "train", TRAIN)
    write_knn(test_path, train_path, tmp_path / "knn.csv", KnnSettings(features=("cls",)))
    probe = LinearProbeSettings(features=("cls",))
    write_linear_probe(test_path, train_path, tmp_path / "probe.csv", probe)
    of_knn, of_probe = read_scores(tmp_path / "knn.csv"), read_scores(tmp_path / "probe.csv")
    (test, truth), (train, labels) = _named(test_path), _named(train_path)
    for position, layer in enumerate(test.layers):
        x, y = train["cls"][:, position], test["cls"][:, position]
        found = vitfeat.knn(x, labels, y, truth)
        assert _of_layer(of_knn, layer) == {
            (f"k={k}", score): value for k, some in found.items() for score, value in some.items()
        }
        scores = vitfeat.linear_probe(x, labels, y, truth)
        penalty = scores.pop("penalty")
        expected = {(f"penalty={penalty:g}", score): value for score, value in scores.items()}
        assert _of_layer(of_probe, layer) == expected


def test_retrieval_map(tmp_path: Path) -> None:
    path = tmp_path / "paris/m.zarr"
    Places().write(path)
    write_table(tmp_path / "relevance.csv", RelevanceRow, RELEVANCE)
    settings = RetrievalSettings(features=("cls",))
    write_retrieval(path, tmp_path / "relevance.csv", tmp_path / "m.csv", settings)
    rows = read_scores(tmp_path / "m.csv")
    store = vitfeat.open(path)
    database = [letter for letter in LETTERS if letter not in "abk"]
    graded = [
        [
            [database.index(r.image[0]) for r in RELEVANCE if (r.query[0], r.grade) == (q, grade)]
            for q in "abk"
        ]
        for grade in ("easy", "hard", "junk")
    ]
    for position, layer in enumerate(store.layers):
        tokens = store["cls"][:, position]
        queries, others = (tokens[[LETTERS.index(q) for q in some]] for some in ("abk", database))
        found = vitfeat.retrieval_map(queries, others, *graded)
        assert _of_layer(rows, layer) == {
            (variant, score): value
            for variant, scores in found.items()
            for score, value in scores.items()
        }


def test_jf(tmp_path: Path) -> None:
    truth = np.zeros((6, 24, 32), dtype=np.uint8)
    for frame in range(6):
        truth[frame, :8], truth[frame, 12:20, 3 * frame : 3 * frame + 12] = 1, 2
    films = write_films(tmp_path / "data", {"moving": list(truth)})

    def drawn(_: str, number: int, layer: int, grid: tuple[int, int]) -> np.ndarray:
        return np.random.default_rng([number, layer]).standard_normal((*grid, 8))

    path = write_store(films, drawn, view_named("dense"), tmp_path / "davis/m.zarr")
    out, masks = tmp_path / "m.csv", tmp_path / "masks"
    write_video(path, *films.arguments(), out, None, masks, VideoSettings(masks="all"))
    rows = read_scores(out)
    for layer in vitfeat.open(path).layers:
        folder = masks / f"{layer:02d}/moving"
        predicted = [read_mask(folder / f"{i:05d}.png", (24, 32)) for i in range(6)]
        expected = {("", score): value for score, value in vitfeat.jf(truth, predicted).items()}
        assert _of_layer(rows, layer) == expected


def test_pck(tmp_path: Path, dataset: Dataset) -> None:  # noqa: F811
    content = content_of(dataset)
    path, table, out = tmp_path / "pairs/m.zarr", tmp_path / "points.csv", tmp_path / "m.csv"
    content.write(path)
    write_table(table, PointRow, dataset.rows)
    settings = KeypointSettings(pairs=2)
    write_keypoints(path, dataset.index_path, table, dataset.root, out, None, settings)
    rows = read_scores(out)
    store, sought = open_points(path, dataset.index_path, table, settings)
    points = sought.points
    for position, layer in enumerate(store.layers):
        places = find_points(store, sought, position).places
        found = vitfeat.pck(
            places, points.target, points.side, pair=points.pair, category=points.category
        )
        of_table = _of_layer(rows, layer)
        assert len(found) == 3
        for alpha, scores in found.items():
            assert len(scores) == 4
            for score, value in scores.items():
                assert of_table[f"{alpha:g}", score] == pytest.approx(value, rel=1e-12)
