from __future__ import annotations

import numpy as np
import pytest

from vitfeat.errors import AnalysisError
from vitfeat.numerics.accumulate import ClassMeans, StreamingMeans

Batch = dict[str, np.ndarray]


@pytest.fixture
def values() -> Batch:
    """40 images with a number, and a map that some images lack in part."""
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(40, 3, 4)).astype(np.float32)
    maps[rng.random(maps.shape) < 0.2] = np.nan
    return {"number": rng.normal(size=40), "map": maps}


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(4).choice([-7, 0, 3, 12], size=40)


def rows(values: Batch, index: np.ndarray | slice) -> Batch:
    return {name: array[index] for name, array in values.items()}


def split(values: Batch, size: int, order: np.ndarray) -> list[Batch]:
    return [rows(values, order[start : start + size]) for start in range(0, len(order), size)]


def test_means_and_counts(values: Batch) -> None:
    means = StreamingMeans()
    for batch in split(values, 7, np.arange(40)):
        means.update(batch)
    found, counts = means.compute(), means.counts
    assert found["number"] == pytest.approx(np.mean(values["number"]), rel=1e-14)
    assert counts["number"] == 40
    expected = np.nanmean(values["map"].astype(np.float64), axis=0)
    np.testing.assert_allclose(found["map"], expected, rtol=1e-13)
    np.testing.assert_array_equal(counts["map"], (~np.isnan(values["map"])).sum(axis=0))
    assert found["map"].dtype == np.float64


@pytest.mark.parametrize("size", [1, 3, 16, 40])
def test_batches_order_and_parts_do_not_matter(values: Batch, size: int) -> None:
    whole = StreamingMeans()
    whole.update(values)
    order = np.random.default_rng(size).permutation(40)
    parts = [StreamingMeans() for _ in range(3)]
    for number, batch in enumerate(split(values, size, order)):
        parts[number % 3].update(batch)
    total = StreamingMeans()
    for part in parts:
        total.merge(part)
    for name, mean in whole.compute().items():
        np.testing.assert_allclose(total.compute()[name], mean, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(total.counts[name], whole.counts[name])


def test_float16_over_thousands_of_batches() -> None:
    """A float16 sum of ones stops at 2048, one of 0.1 at 256."""
    batch = np.full((2, 3), 0.1, dtype=np.float16)
    means = StreamingMeans()
    for _ in range(2500):
        means.update({"x": batch})
    np.testing.assert_allclose(means.compute()["x"], float(np.float16(0.1)), rtol=1e-13)
    assert means.counts["x"].tolist() == [5000] * 3


def test_float32_is_summed_in_float64() -> None:
    """2 ** 24 + 1 + 1 is 2 ** 24 in float32, within a batch and across batches."""
    means = StreamingMeans()
    means.update({"x": np.array([2**24, 1, 1], dtype=np.float32)})
    for _ in range(2):
        means.update({"x": np.ones(1, dtype=np.float32)})
    assert means.compute()["x"] == (2**24 + 4) / 5


def test_integers() -> None:
    means = StreamingMeans()
    means.update({"x": np.array([1, 2, 4])})
    assert means.compute()["x"] == pytest.approx(7 / 3)


def test_an_entry_that_no_image_has() -> None:
    means = StreamingMeans()
    means.update({"x": np.array([[1.0, np.nan], [3.0, np.nan]])})
    np.testing.assert_array_equal(means.compute()["x"], [2, np.nan])
    assert means.counts["x"].tolist() == [2, 0]


def test_an_empty_batch_changes_nothing(values: Batch) -> None:
    means = StreamingMeans()
    means.update(rows(values, slice(0, 0)))
    means.update(values)
    means.update(rows(values, slice(0, 0)))
    alone = StreamingMeans()
    alone.update(values)
    for name, mean in alone.compute().items():
        np.testing.assert_array_equal(means.compute()[name], mean)


def test_neither_input_nor_other_parts_change(values: Batch, labels: np.ndarray) -> None:
    kept = {name: array.copy() for name, array in values.items()}
    for array in (*values.values(), labels):
        array.flags.writeable = False
    part, total = StreamingMeans(), StreamingMeans()
    part.update(values)
    before = part.compute()
    total.merge(part)
    total.update(values)
    total.merge(part)
    ClassMeans().update(values, labels)
    for name, array in values.items():
        np.testing.assert_array_equal(array, kept[name])
        np.testing.assert_array_equal(part.compute()[name], before[name])
        np.testing.assert_allclose(total.compute()[name], before[name], rtol=1e-14)
        np.testing.assert_array_equal(total.counts[name], 3 * part.counts[name])


def test_an_update_that_fails_takes_nothing_in(values: Batch) -> None:
    means = StreamingMeans()
    means.update(values)
    before = means.compute()
    with pytest.raises(AnalysisError, match="'other' has shape"):
        means.update(values | {"other": values["number"]})
    with pytest.raises(AnalysisError, match="'map' has shape none"):
        means.update({"number": values["number"]})
    with pytest.raises(AnalysisError, match=r"'map' has shape \(3, 2\)"):
        means.update(values | {"map": values["map"][..., :2]})
    with pytest.raises(AnalysisError, match="number 40, map 39"):
        means.update(values | {"map": values["map"][1:]})
    for name, mean in before.items():
        np.testing.assert_array_equal(means.compute()[name], mean)


@pytest.mark.parametrize("values", [[np.inf, 1.0], [np.inf, np.nan], [np.inf, -np.inf]])
def test_infinite_values(values: list[float]) -> None:
    with pytest.raises(AnalysisError, match="'x' has infinite values"):
        StreamingMeans().update({"x": np.array(values)})


def test_nothing_to_average() -> None:
    with pytest.raises(AnalysisError, match="over no images"):
        StreamingMeans().compute()
    with pytest.raises(AnalysisError, match="over no images"):
        ClassMeans().compute()


# --- Classes ---


def test_means_of_classes(values: Batch, labels: np.ndarray) -> None:
    means = ClassMeans()
    means.update(values, labels)
    assert means.labels == (-7, 0, 3, 12)
    found = means.compute()
    for name, array in values.items():
        for row, label in enumerate(means.labels):
            expected = np.nanmean(array[labels == label].astype(np.float64), axis=0)
            np.testing.assert_allclose(found[name][row], expected, rtol=1e-12)


def test_deviation_over_classes(values: Batch, labels: np.ndarray) -> None:
    means = ClassMeans()
    means.update(values, labels)
    for name, found in means.deviation().items():
        expected = np.nanstd(means.compute()[name], axis=0, ddof=1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_every_class_counts_alike() -> None:
    """Class means 0 and 2: a deviation of sqrt(2), with ddof 1, however many images."""
    means = ClassMeans()
    means.update({"x": np.array([0.0] * 9 + [2.0])}, np.array([0] * 9 + [1]))
    assert means.deviation()["x"] == pytest.approx(np.sqrt(2), rel=1e-15)


def test_a_deviation_of_one_class() -> None:
    means = ClassMeans()
    means.update({"x": np.array([[1.0, 1.0]])}, np.array([5]))
    with pytest.raises(AnalysisError, match="there are 1"):
        means.deviation()
    # A second class that lacks one entry: that entry is of one class.
    means.update({"x": np.array([[3.0, np.nan]])}, np.array([6]))
    np.testing.assert_allclose(means.deviation()["x"], [np.sqrt(2), np.nan])


@pytest.mark.parametrize("size", [1, 9, 40])
def test_classes_in_any_batches_and_parts(values: Batch, labels: np.ndarray, size: int) -> None:
    whole = ClassMeans()
    whole.update(values, labels)
    order = np.random.default_rng(size).permutation(40)
    parts = [ClassMeans(), ClassMeans()]
    for number, batch in enumerate(split(values | {"": labels}, size, order)):
        parts[number % 2].update(batch, batch.pop(""))
    parts[0].merge(parts[1])
    assert parts[0].labels == whole.labels
    for found, expected in (
        (parts[0].compute(), whole.compute()),
        (parts[0].deviation(), whole.deviation()),
    ):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-11, atol=1e-14)


def test_labels_may_be_names() -> None:
    means = ClassMeans()
    means.update({"x": np.arange(3.0)}, np.array(["dog", "cat", "dog"]))
    assert means.labels == ("cat", "dog")
    assert means.compute()["x"].tolist() == [1, 1]


def test_classes_that_do_not_fit(values: Batch, labels: np.ndarray) -> None:
    means = ClassMeans()
    means.update(values, labels)
    before = means.compute()
    with pytest.raises(AnalysisError, match="one label an image"):
        means.update(values, labels[1:])
    for label in (labels, np.full(40, 99)):
        with pytest.raises(AnalysisError, match="'map' has shape none"):
            means.update({"number": values["number"]}, label)
    assert means.labels == (-7, 0, 3, 12)
    for name, array in before.items():
        np.testing.assert_array_equal(means.compute()[name], array)
