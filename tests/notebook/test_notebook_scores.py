"""The functions of arrays against other libraries, closed forms and definitions; and bad input."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from pydantic import BaseModel
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

import vitfeat
from tests.analyses.attention.reference_attention import Reference
from tests.analyses.cka import reference_cka
from tests.analyses.video.reference_davis import boundary, decay, region
from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.errors import VitfeatError

Draw = Callable[..., np.ndarray]


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and names of training and of test images, of seven classes that overlap."""
    drawn = np.random.default_rng(3)
    centres = 0.8 * drawn.normal(size=(7, 5))
    found: list[np.ndarray] = []
    for n in (90, 40):
        of = drawn.integers(0, 7, n)
        found += [
            (centres[of] + drawn.normal(size=(n, 5))).astype(np.float32),
            np.array(list("gfedcba"))[of],
        ]
    return found[0], found[1], found[2], found[3]


# --- CKA ---


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_cka_is_its_formula(features: Draw, estimator: str) -> None:
    x, y = features(30, 12), features(30, 7)
    hsic = reference_cka.hsic1 if estimator == "debiased" else reference_cka.hsic0
    found = vitfeat.cka(x, y, estimator=estimator)
    assert isinstance(found, float)
    assert found == pytest.approx(reference_cka.cka(x, y, hsic), rel=1e-5)


def test_cka_in_batches_of_images_as_they_stand(features: Draw) -> None:
    x, y = features(24, 12), features(24, 7)
    batches = [np.arange(start, start + 8) for start in (0, 8, 16)]
    for estimator, scale in (("minibatch", False), ("paper", True)):
        found = vitfeat.cka(x, y, estimator=estimator, batch_size=8, batch_order="stored")
        expected = reference_cka.minibatch(x, y, batches, scale=scale)
        assert found == pytest.approx(expected, rel=1e-5)


def test_cka_of_lists_is_that_of_every_two_layers(features: Draw) -> None:
    x, y = [features(20, 6) for _ in range(3)], [features(20, 4) for _ in range(2)]
    found = vitfeat.cka(x, y)
    assert found.shape == (3, 2)
    expected = [[vitfeat.cka(a, b) for b in y] for a in x]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cka_flattens_tokens_and_takes_the_arrays_of_other_libraries(features: Draw) -> None:
    x, y = features(20, 24), features(20, 6)
    expected = vitfeat.cka(x, y)
    assert vitfeat.cka(x.reshape(20, 2, 3, 4), y) == expected
    assert vitfeat.cka(torch.from_numpy(x), xarray.DataArray(y)) == expected  # type: ignore[call-overload]
    half = x.astype(np.float16)
    assert vitfeat.cka(half, y) == vitfeat.cka(half.astype(np.float64), y)


def test_cka_of_constant_features_is_none_and_is_said(
    features: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.isnan(vitfeat.cka(np.ones((10, 3)), features(10, 3)))
    assert "its features do not tell the images apart" in caplog.text


# --- Attention ---


@pytest.mark.parametrize(
    ("grid", "has_cls", "n_registers"), [((2, 3), True, 0), ((2, 2), True, 2), ((3, 3), False, 0)]
)
def test_attention_metrics_are_their_definitions(
    grid: tuple[int, int], has_cls: bool, n_registers: int
) -> None:
    n = grid[0] * grid[1] + has_cls + n_registers
    scores = np.exp(2 * np.random.default_rng(1).normal(size=(2, 3, 4, n, n)))
    attention = scores / scores.sum(axis=-1, keepdims=True)
    given = None if grid[0] == grid[1] else grid
    found = vitfeat.attention_metrics(
        attention, given, has_cls=has_cls, n_registers=n_registers, patch_size=16
    )
    for place in np.ndindex(2, 3):
        expected = Reference(attention[place], grid, has_cls, n_registers).metrics("zero", 16)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][place], values, rtol=3e-5, atol=2e-6)


def test_attention_on_nothing_spatial_counts_as_said() -> None:
    attention = np.zeros((1, 5, 5))
    attention[..., 0] = 1
    attention[0, 4] = [0, 1, 0, 0, 0]
    zero = vitfeat.attention_metrics(attention)
    left_out = vitfeat.attention_metrics(attention, null_rows="exclude")
    assert zero["n_null"].tolist() == [3]
    # From the last token of 2 x 2 to the first; the other three rows are zeros, or left out.
    assert zero["distance_patches"] == pytest.approx([2**0.5 / 4])
    assert left_out["distance_patches"] == pytest.approx([2**0.5])


# --- Clusters, k-NN, linear probe ---


def test_cluster_scores_are_those_of_scikit_learn(classes: tuple[np.ndarray, ...]) -> None:
    x, names, *_ = classes
    expected: dict[str, list[float]] = {"nmi": [], "ari": [], "purity": []}
    for seed in (4, 5):
        clusters = KMeans(5, n_init=3, random_state=seed).fit(x).labels_
        expected["nmi"].append(normalized_mutual_info_score(names, clusters))
        expected["ari"].append(adjusted_rand_score(names, clusters))
        most = [max(np.unique(names[clusters == c], return_counts=True)[1]) for c in range(5)]
        expected["purity"].append(sum(most) / len(names))
    found = vitfeat.cluster_scores(x, names, clusters=5, n_init=3, seeds=2, seed=4)
    assert found == pytest.approx({name: np.mean(values) for name, values in expected.items()})


def test_images_without_a_label_are_left_out(classes: tuple[np.ndarray, ...]) -> None:
    x, names, test, truth = classes
    number = {name: i for i, name in enumerate("abcdefg")}
    y, wanted = (np.array([number[name] for name in some]) for some in (names, truth))
    gone, gone_too = np.arange(len(y)) % 5 == 0, np.arange(len(wanted)) % 7 == 0
    y_less, wanted_less = np.where(gone, -1, y), np.where(gone_too, -1, wanted)
    for of in (vitfeat.knn, vitfeat.linear_probe):
        some: Any = of
        expected = some(x[~gone], y[~gone], test[~gone_too], wanted[~gone_too])
        assert some(x, y_less, test, wanted_less) == expected
    assert vitfeat.cluster_scores(x, y_less) == vitfeat.cluster_scores(x[~gone], names[~gone])


def test_knn_is_that_of_scikit_learn(classes: tuple[np.ndarray, ...]) -> None:
    x, names, test, truth = classes
    found = vitfeat.knn(x, names, test, truth, neighbours=[1, 12, 500], temperature=0.2)
    assert list(found) == [1, 12, 90]
    for k, scores in found.items():
        model = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.2)
        ).fit(x, names)
        assert scores["top1"] == pytest.approx(np.mean(model.predict(test) == truth))
        order = np.argsort(-model.predict_proba(test), axis=1, kind="stable")[:, :5]
        votes = np.take_along_axis(model.predict_proba(test), order, axis=1)
        hit = ((model.classes_[order] == truth[:, None]) & (votes > 0)).any(axis=1)
        assert scores["top5"] == pytest.approx(hit.mean())


def test_linear_probe_is_that_of_scikit_learn(classes: tuple[np.ndarray, ...]) -> None:
    x, names, test, truth = classes
    found = vitfeat.linear_probe(x, names, test, truth, regularisation=0.02)
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    model = LogisticRegression(C=1 / (0.02 * len(x)), tol=1e-8, max_iter=5000)
    model.fit((x - mean) / scale, names)
    logits = model.decision_function((test - mean) / scale)
    order = model.classes_[np.argsort(-logits, axis=1)]
    hits = order == truth[:, None]
    assert found == pytest.approx(
        {"top1": hits[:, 0].mean(), "top5": hits[:, :5].any(axis=1).mean(), "penalty": 0.02}
    )


def test_linear_probe_chooses_among_penalties(classes: tuple[np.ndarray, ...]) -> None:
    found = vitfeat.linear_probe(*classes, regularisation=(1e-2, 1e3))
    alone = vitfeat.linear_probe(*classes, regularisation=1e-2)
    assert found.pop("validation_top1") > 1 / 7
    assert found == alone


def test_strange_classes_count_as_errors_and_are_said(
    classes: tuple[np.ndarray, ...], caplog: pytest.LogCaptureFixture
) -> None:
    x, names, test, truth = classes
    strange = np.where(truth == "a", "z", truth)
    usual = vitfeat.knn(x, names, test[truth != "a"], truth[truth != "a"], neighbours=3)[3]
    found = vitfeat.knn(x, names, test, strange, neighbours=3)[3]
    share = np.mean(truth != "a")
    assert found["top1"] == pytest.approx(usual["top1"] * share)
    assert (
        f"{np.sum(truth == 'a')} test images of classes that no training image has" in caplog.text
    )


# --- Retrieval, video, keypoints ---


def test_retrieval_map_is_its_definition() -> None:
    drawn = np.random.default_rng(2)
    queries, database = drawn.normal(size=(4, 6)), drawn.normal(size=(30, 6))
    easy, hard, junk = [[1, 2, 9], [], [4], []], [[5], [7, 8], [], []], [[3, 11], [0], [6], [2]]
    found = vitfeat.retrieval_map(queries, database, easy, hard, junk, ranks=[1, 10])
    cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        database / np.linalg.norm(database, axis=1, keepdims=True)
    ).T
    for variant in ("easy", "medium", "hard"):
        precisions, at = [], []
        for query in range(4):
            positive = {"easy": easy[query], "hard": hard[query]}.get(
                variant, easy[query] + hard[query]
            )
            ignored = {"easy": hard[query], "hard": easy[query]}.get(variant, []) + junk[query]
            order = [i for i in np.argsort(-cosine[query]).tolist() if i not in ignored]
            places = [place for place, image in enumerate(order) if image in positive]
            if not places:
                continue
            parts = [((j / r if r else 1) + (j + 1) / (r + 1)) / 2 for j, r in enumerate(places)]
            precisions.append(sum(parts) / len(parts))
            deep = min(places[-1] + 1, 10)
            at.append((float(places[0] == 0), sum(p < deep for p in places) / deep))
        first, tenth = np.mean(at, axis=0)
        assert found[variant] == pytest.approx(
            {"map": np.mean(precisions), "mp@1": first, "mp@10": tenth}
        )


def test_a_variant_without_positives_is_absent() -> None:
    found = vitfeat.retrieval_map(np.eye(2), np.eye(2), [[0], [0]])
    assert list(found) == ["easy", "medium"]
    assert found["easy"] == found["medium"]


def test_jf_is_its_definition() -> None:
    drawn = np.random.default_rng(5)
    truth = np.zeros((7, 20, 30), dtype=np.uint8)
    predicted = truth.copy()
    for frame in range(7):
        truth[frame, 2:12, frame : frame + 8] = 1
        truth[frame, 8:18, 15:25] = 3
        predicted[frame, 3:12, frame : frame + 6] = 1
        predicted[frame, 8 : 18 - frame, 14:25] = 3
    truth[drawn.random(truth.shape) < 0.02] = 255
    found = vitfeat.jf(truth, predicted)
    expected: dict[str, list[float]] = {}
    for number in (1, 3):
        for letter, score in (("j", region), ("f", boundary)):
            values = [
                score(t == number, p == number) for t, p in zip(truth, predicted, strict=True)
            ]
            values = values[1:-1]
            expected.setdefault(f"{letter}_mean", []).append(float(np.mean(values)))
            expected.setdefault(f"{letter}_recall", []).append(
                float(np.mean(np.array(values) > 0.5))
            )
            expected.setdefault(f"{letter}_decay", []).append(decay(values))
    means = {name: float(np.mean(values)) for name, values in expected.items()}
    assert found.pop("jf_mean") == pytest.approx((means["j_mean"] + means["f_mean"]) / 2)
    assert found == pytest.approx(means)


def test_objects_that_jf_scores() -> None:
    truth = np.zeros((4, 6, 6), dtype=int)
    truth[:, :3, :3], truth[1:, 3:, 3:], truth[:, 4:, :2] = 1, 2, 3
    predicted = np.where(truth == 2, 0, truth)
    assert vitfeat.jf(truth, predicted)["j_mean"] == 1
    assert vitfeat.jf(truth, predicted, "official")["j_mean"] == pytest.approx(2 / 3)
    assert vitfeat.jf(truth == 1, truth == 1, [1])["jf_mean"] == 1


def test_pck_is_its_definition() -> None:
    drawn = np.random.default_rng(6)
    n = 60
    target = 100 * drawn.random((n, 2))
    found, side = target + 8 * drawn.normal(size=(n, 2)), 40 + 80 * drawn.random(n)
    pair = drawn.integers(0, 9, n)
    category = np.array(["cat", "dog", ""])[pair % 3]
    got = vitfeat.pck(found, target, side, pair=pair, category=category, alphas=[0.05, 0.2])
    for alpha, scores in got.items():
        hit = np.hypot(*(found - target).T) <= alpha * side
        of_pair = {p: hit[pair == p].mean() for p in np.unique(pair)}
        by_category = [
            (
                hit[category == c].mean(),
                np.mean([of_pair[p] for p in np.unique(pair[category == c])]),
            )
            for c in np.unique(category)
        ]
        by_point, by_image = np.mean(by_category, axis=0)
        assert scores == pytest.approx(
            {
                "pck_point": hit.mean(),
                "pck_image": np.mean(list(of_pair.values())),
                "pck_point_category_mean": by_point,
                "pck_image_category_mean": by_image,
            }
        )
    names = np.array([f"pair {p}" for p in pair])
    again = vitfeat.pck(found, target, side, pair=names, alphas=0.2)
    assert again == {0.2: {name: got[0.2][name] for name in ("pck_point", "pck_image")}}


# --- What is given ---

X = np.random.default_rng(0).normal(size=(8, 3))
Y = ["cat", "dog"] * 4
UNIFORM = np.full((1, 5, 5), 0.2)
MASKS = np.ones((3, 4, 4), dtype=int)

REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "cka: images": (lambda: vitfeat.cka(X, X[:7]), "cka: x is of 8 images and y of 7"),
    "cka: few": (lambda: vitfeat.cka(X[:3], X[:3]), "at least 4 images"),
    "cka: shape": (lambda: vitfeat.cka(X[0], X[0]), "cka: x is of shape (3,)"),
    "cka: list": (lambda: vitfeat.cka([X], X), "both be arrays, or both lists"),  # type: ignore[call-overload]
    "cka: no layer": (lambda: vitfeat.cka([], []), "cka: x is an empty list"),
    "cka: layers": (lambda: vitfeat.cka([X, X[1:]], [X]), "layers of x are of 7 and 8 images"),
    "cka: nan": (lambda: vitfeat.cka(X * np.nan, X), "not finite"),
    "cka: estimator": (lambda: vitfeat.cka(X, X, estimator="b"), "no CKA estimator is called 'b'"),
    "cka: batch": (lambda: vitfeat.cka(X, X, batch_size=2), "cka: batch_size: found 2"),
    "cka: seed": (lambda: vitfeat.cka(X, X, seed=-1), "cka: seed: found -1"),
    "cka: texts": (lambda: vitfeat.cka(np.array([["a"]]), X), "needed are real numbers"),
    "attention: logits": (lambda: vitfeat.attention_metrics(2 * UNIFORM), "sums to 2, not 1"),
    "attention: nan": (lambda: vitfeat.attention_metrics(np.nan * UNIFORM), "not 1"),
    "attention: grid": (lambda: vitfeat.attention_metrics(UNIFORM, (2, 3)), "of 7 tokens"),
    "attention: square": (
        lambda: vitfeat.attention_metrics(UNIFORM, n_registers=1),
        "are 3, which is no square",
    ),
    "attention: shape": (lambda: vitfeat.attention_metrics(UNIFORM[0]), "of shape (5, 5)"),
    "attention: null": (
        lambda: vitfeat.attention_metrics(UNIFORM, null_rows="one"),  # type: ignore[arg-type]
        "attention_metrics: null_rows: found 'one'",
    ),
    "clusters: labels": (lambda: vitfeat.cluster_scores(X, Y[1:]), "needed are 8 whole numbers"),
    "clusters: floats": (lambda: vitfeat.cluster_scores(X, X[:, 0]), "array of float64"),
    "clusters: one": (lambda: vitfeat.cluster_scores(X, [1] * 8), "8 labelled images of 1 class"),
    "clusters: none": (lambda: vitfeat.cluster_scores(X, [-1] * 8), "all of labels are -1"),
    "clusters: many": (lambda: vitfeat.cluster_scores(X, Y, clusters=9), "9 clusters"),
    "clusters: layers": (
        lambda: vitfeat.cluster_scores(X[:, None], Y),
        "features is of shape (8, 1, 3); needed is (image, channel)",
    ),
    "clusters: setting": (lambda: vitfeat.cluster_scores(X, Y, seeds=0), "seeds: found 0"),
    "knn: width": (lambda: vitfeat.knn(X, Y, X[:, :2], Y), "train has 3 channels, test 2"),
    "knn: classes": (lambda: vitfeat.knn(X, Y, X, ["owl"] * 8), "no class is in both"),
    "knn: kinds": (lambda: vitfeat.knn(X, Y, X, [1] * 8), "no class is in both"),
    "knn: k": (lambda: vitfeat.knn(X, Y, X, Y, neighbours=0), "knn: neighbours.0: found 0"),
    "knn: no k": (
        lambda: vitfeat.knn(X, Y, X, Y, neighbours=[]),
        "knn: neighbours: found an empty",
    ),
    "knn: warm": (lambda: vitfeat.knn(X, Y, X, Y, temperature=0), "knn: temperature: found 0"),
    "knn: inf": (lambda: vitfeat.knn(X, Y, X / 0.0, Y), "not finite"),
    "probe: one": (lambda: vitfeat.linear_probe(X, [1] * 8, X, [1] * 8), "two or more"),
    "probe: penalty": (
        lambda: vitfeat.linear_probe(X, Y, X, Y, regularisation=-1),
        "linear_probe: regularisation.0: found -1",
    ),
    "probe: share": (lambda: vitfeat.linear_probe(X, Y, X, Y, validation=1), "validation: found 1"),
    "map: lists": (lambda: vitfeat.retrieval_map(X, X, [[1]]), "easy has 1 list of places"),
    "map: place": (
        lambda: vitfeat.retrieval_map(X[:1], X, [[8]]),
        "place 8; places go from 0 to 7",
    ),
    "map: twice": (lambda: vitfeat.retrieval_map(X[:1], X, [[1]], [[1]]), "a place twice"),
    "map: nothing": (lambda: vitfeat.retrieval_map(X[:1], X, [[]]), "no query has an easy"),
    "map: mask": (lambda: vitfeat.retrieval_map(X[:1], X, [[0.5]]), "needed are whole numbers"),  # type: ignore[list-item]
    "map: rank": (lambda: vitfeat.retrieval_map(X[:1], X, [[0]], ranks=0), "ranks.0: found 0"),
    "jf: shapes": (lambda: vitfeat.jf(MASKS, MASKS[:, 1:]), "truth is of shape (3, 4, 4)"),
    "jf: frames": (lambda: vitfeat.jf(MASKS[:2], MASKS[:2]), "three or more"),
    "jf: no object": (lambda: vitfeat.jf(0 * MASKS, MASKS), "the first mask holds none"),
    "jf: floats": (lambda: vitfeat.jf(MASKS / 2, MASKS), "jf: truth is an array of float64"),
    "jf: other": (lambda: vitfeat.jf(MASKS, 2 * MASKS), "holds object 2"),
    "jf: objects": (lambda: vitfeat.jf(MASKS, MASKS, "all"), "jf: objects: found 'all'"),  # type: ignore[arg-type]
    "pck: shape": (lambda: vitfeat.pck(X, X, 1), "found of shape (8, 3)"),
    "pck: side": (lambda: vitfeat.pck(X[:, :2], X[:, :2], [1, 2]), "side of (2,)"),
    "pck: nan": (lambda: vitfeat.pck(X[:, :2], np.nan * X[:, :2], 1), "not finite"),
    "pck: alpha": (lambda: vitfeat.pck(X[:, :2], X[:, :2], 1, alphas=0), "alphas.0: found 0"),
    "pck: pair": (lambda: vitfeat.pck(X[:, :2], X[:, :2], 1, pair=[1]), "pair is an array of int"),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(VitfeatError) as refused:
        call()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_arrays_are_not_changed(classes: tuple[np.ndarray, ...]) -> None:
    before = [array.copy() for array in classes]
    for array in classes:
        array.flags.writeable = False
    vitfeat.knn(*classes)
    vitfeat.linear_probe(*classes, regularisation=1)
    vitfeat.cluster_scores(*classes[:2], n_init=1, seeds=1)
    vitfeat.cka(classes[0], classes[0])
    assert all(np.array_equal(a, b) for a, b in zip(before, classes, strict=True))


SETTINGS: Mapping[str, type[BaseModel]] = {
    "attention_metrics": AttentionSettings,
    "cka": CkaSettings,
    "cluster_scores": ClusteringSettings,
    "jf": VideoSettings,
    "knn": KnnSettings,
    "linear_probe": LinearProbeSettings,
    "pck": KeypointSettings,
    "retrieval_map": RetrievalSettings,
}


@pytest.mark.parametrize("function", SETTINGS)
def test_defaults_are_those_of_the_analysis(function: str) -> None:
    usual = dict(SETTINGS[function]())
    parameters = inspect.signature(getattr(vitfeat, function)).parameters
    shared = parameters.keys() & usual.keys() - {"features", "train"}
    assert shared or function == "cka"
    assert {name: parameters[name].default for name in shared} == {n: usual[n] for n in shared}
    if function == "cka":
        assert parameters["estimator"].default == CkaSettings().estimators[0]


def test_importing_them_is_cheap() -> None:
    code = (
        "import sys, vitfeat; print(*({'numpy', 'pydantic', 'torch', 'zarr'} & set(sys.modules)));"
        "vitfeat.cka, vitfeat.extract;"
        "heavy = {'torch', 'timm', 'zarr', 'sklearn', 'scipy', 'numba', 'matplotlib'};"
        "print(*(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_all_of_them_are_named_and_no_other() -> None:
    assert set(vitfeat.__all__) <= set(dir(vitfeat))
    assert all(getattr(vitfeat, name) is not None for name in vitfeat.__all__)
    with pytest.raises(AttributeError, match="module 'vitfeat' has no attribute 'ckaa'"):
        _ = vitfeat.ckaa  # type: ignore[attr-defined]
