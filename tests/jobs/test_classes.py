"""Two stores whose classes are matched by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs.labelled_stores import TEST, TRAIN, Classes, classes
from vitfeat.errors import AnalysisError
from vitfeat.jobs.classes import Pair, open_pair


def opened(tmp_path: Path, test: Classes, train: Classes) -> Pair:
    paths = [
        content.write_to(tmp_path / name / "m.zarr")
        for name, content in (("digits", test), ("digits-train", train))
    ]
    return open_pair(*paths)


def test_classes_are_matched_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers of the two stores run in opposite order."""
    pair = opened(tmp_path, TEST, TRAIN)
    assert pair.names == tuple("abcdef")
    for part, content in ((pair.test, TEST), (pair.train, TRAIN)):
        assert [pair.names[c] for c in part.classes] == list(content.names)
        np.testing.assert_array_equal(part.rows, np.arange(content.n_images))
    assert (pair.test.dataset, pair.train.dataset) == ("digits", "digits-train")
    assert caplog.messages == []


def test_what_has_no_match_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = classes(["x", "a", None, "c", "x", "y"], "xaycé", seed=0, images="cd")
    train = classes(["a", "b", "c", None, None, "a"], "abc", seed=0, images="ab")
    pair = opened(tmp_path, test, train)
    assert pair.names == ("a", "b", "c")
    assert pair.test.classes.tolist() == [-1, 0, 2, -1, -1]
    assert pair.test.rows.tolist() == [0, 1, 3, 4, 5]
    assert pair.train.classes.tolist() == [0, 1, 2, 0]
    assert pair.train.rows.tolist() == [0, 1, 2, 5]
    assert caplog.messages == [
        "m: 1 of 6 images of digits without a label: left out",
        "m: 2 of 6 images of digits-train without a label: left out",
        "m: 3 images of digits count as errors, of classes that digits-train lacks ('x', 'y'); "
        "1 of 3 classes of digits-train have no image in digits ('b')",
    ]


def test_many_names_are_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = classes([*map(str, range(9)), "a"], [*map(str, range(9)), "a"], seed=0, images="ab")
    opened(tmp_path, classes(["a"] * 4, "a", seed=0, images="cd"), train)
    assert caplog.messages == [
        "m: 9 of 10 classes of digits-train have no image in digits ('0', '1', '2', '3', '4', ...)"
    ]


def test_features_are_of_the_labelled_images(tmp_path: Path) -> None:
    names = [None if i % 3 == 0 else n for i, n in enumerate(TEST.names)]
    content = replace(TEST, names=tuple(names))
    pair = opened(tmp_path, content, TRAIN)
    kept = [i for i, name in enumerate(names) if name is not None]
    for kind in ("cls", "mean"):
        found = pair.test.features(kind, 3, 5, 20)
        np.testing.assert_allclose(found, content.features(kind, 1)[kept[5:20]], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": "ab"}, "test and training images are the same"),
        (
            {"request_more": {"model": {"weights_sha256": "00"}}},
            r"they differ in model \(weights_sha256, ",
        ),
        ({"request_more": {"view": {"kind": "padded"}}}, r"they differ in view \(kind, size, "),
        ({"names": (None,) * 50}, "none of 50 images has a label"),
        (
            {"order": tuple("ghijkl"), "names": tuple("ghijkl" * 9)[:50]},
            r"no class is in both \('g', 'h', 'i', 'j', 'k', ...; 'a', 'b', 'c', 'd', 'e', ...\)",
        ),
    ],
)
def test_stores_that_do_not_go_together(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        opened(tmp_path, replace(TEST, **change), TRAIN)


def test_a_store_is_not_its_own_training_images(tmp_path: Path) -> None:
    path = TEST.write_to(tmp_path / "digits" / "m.zarr")
    with pytest.raises(AnalysisError, match="would find itself"):
        open_pair(path, path)


@pytest.mark.parametrize("which", ["test", "train"])
def test_what_is_not_stored_is_one_line(tmp_path: Path, which: str) -> None:
    contents = {"test": TEST, "train": TRAIN}
    contents[which] = replace(contents[which], taps=("spatial",))
    pair = opened(tmp_path, contents["test"], contents["train"])
    assert list(pair.kinds(["mean"], "knn")) == ["mean"]
    with pytest.raises(AnalysisError, match=r"cls not stored \(it holds spatial\).*knn.features"):
        list(pair.kinds(["mean", "cls"], "knn"))


def test_features_of_some_images_only_are_one_line(tmp_path: Path) -> None:
    pair = opened(tmp_path, replace(TEST, kept={"spatial": (1, 4, 7)}), TRAIN)
    with pytest.raises(AnalysisError, match="spatial of some images only"):
        list(pair.kinds(["mean"], "knn"))


def test_layers_by_name_and_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = opened(tmp_path, TEST, TRAIN)
    assert pair.layers(["all"]) == [1, 3, 4]
    assert pair.layers([4, "first"]) == [1, 4]
    assert pair.layers([-1, "first"]) == [1, 4]
    assert pair.layers([-3, -1]) == [1, 4]
    assert caplog.messages == []
    assert pair.layers([4, 0, 9]) == [4]
    assert caplog.messages == [f"m: layer {n} is not stored; nothing to do" for n in (0, 9)]
