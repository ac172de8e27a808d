"""Search of the nearest images, against a sort of all cosines in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from vitfeat.errors import AnalysisError
from vitfeat.numerics.neighbours import Neighbours, keys, nearest_images, on_cpu, on_torch

Features = np.ndarray
Found = tuple[np.ndarray, np.ndarray]

DEVICES = ["cpu", "cpu:0"]
"""The second is torch's."""


@pytest.fixture(params=[(512, 4096), (7, 5), (3, 64)], ids=["usual", "tiny", "flat"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of several sizes, so that lists are merged never, often, and before they are full."""
    for module in (on_cpu, on_torch):
        monkeypatch.setattr(module, "ROWS", request.param[0])
        monkeypatch.setattr(module, "TILE", request.param[1])


def read(features: Features) -> Callable[[int, int], Features]:
    return lambda start, stop: features[start:stop]


def search(queries: Features, bank: Features, k: int, **options: object) -> Found:
    parts: list[Neighbours] = list(
        nearest_images(read(queries), len(queries), read(bank), len(bank), k, **options)  # type: ignore[arg-type]
    )
    assert [p.start for p in parts] == np.cumsum([0, *(len(p.image) for p in parts)])[:-1].tolist()
    return np.concatenate([p.image for p in parts]), np.concatenate([p.similarity for p in parts])


def cosines(queries: Features, bank: Features) -> np.ndarray:
    """Each pair in turn, in float64."""
    out = np.zeros((len(queries), len(bank)))
    for i, x in enumerate(queries.astype(np.float64)):
        for j, y in enumerate(bank.astype(np.float64)):
            norms = np.sqrt((x**2).sum()) * np.sqrt((y**2).sum())
            out[i, j] = (x * y).sum() / norms if norms else 0.0
    return out


def reference(queries: Features, bank: Features, k: int) -> Found:
    """The first k of all images, by cosine and then by place."""
    found = cosines(queries, bank)
    order = [sorted(range(len(bank)), key=lambda j, row=row: (-row[j], j))[:k] for row in found]
    return np.array(order), np.take_along_axis(found, np.array(order), axis=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 4, 60, 150])
@pytest.mark.usefixtures("blocks")
def test_lists_are_the_first_of_all(device: str, k: int) -> None:
    generator = np.random.default_rng(k)
    queries = 100 * generator.standard_normal((23, 6)).astype(np.float32)
    bank = generator.standard_normal((150, 6)).astype(np.float32)
    images, similarity = search(queries, bank, k, device=device)
    expected, cosine = reference(queries, bank, k)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_allclose(similarity, cosine, atol=3e-7)
    assert images.dtype == np.int64
    assert similarity.dtype == np.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("blocks")
def test_of_equal_similarities_the_first_image_is_nearer(device: str) -> None:
    """Along axes cosines are 1, 0 and -1, each of many images, on either side of the last place."""
    generator = np.random.default_rng(0)
    signs = generator.choice([-2.0, 0.5], 40)
    bank = np.zeros((40, 3), dtype=np.float32)
    bank[np.arange(40), generator.integers(0, 3, 40)] = signs
    bank[[4, 9, 30]] = 0
    queries = np.concatenate([np.eye(3), -7 * np.eye(3), np.zeros((1, 3))]).astype(np.float32)
    for k in (1, 3, 17, 40):
        images, similarity = search(queries, bank, k, device=device)
        expected, cosine = reference(queries, bank, k)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(similarity, cosine)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ["ascending", "descending", "classes"])
@pytest.mark.usefixtures("blocks")
def test_the_order_of_the_bank_is_nothing_to_a_list(device: str, order: str) -> None:
    """An ascending bank has a better image at every place; classes come all at once."""
    angles = np.linspace(3, 0.01, 90)
    if order == "descending":
        angles = angles[::-1]
    if order == "classes":
        angles = np.concatenate([angles[::3], angles[1::3], angles[2::3]])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    queries = np.array([[1, 0], [-1, 0.001], [0, 1]], dtype=np.float32)
    images, _ = search(queries, bank, 12, device=device)
    np.testing.assert_array_equal(images, reference(queries, bank, 12)[0])


@pytest.mark.parametrize("device", DEVICES)
def test_zero_vectors_have_cosine_zero(device: str) -> None:
    bank = np.array([[-1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    queries = np.array([[0, 0], [3, 0]], dtype=np.float32)
    images, similarity = search(queries, bank, 4, device=device)
    np.testing.assert_array_equal(images, [[0, 1, 2, 3], [2, 1, 3, 0]])
    np.testing.assert_array_equal(similarity, [[0, 0, 0, 0], [1, 0, 0, -1]])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_neither_overflow_nor_vanish(scale: float) -> None:
    generator = np.random.default_rng(0)
    queries, bank = (generator.standard_normal((n, 4)).astype(np.float32) for n in (5, 20))
    plain = search(queries, bank, 6)
    scaled = search(queries * np.float32(scale), bank * np.float32(scale), 6)
    np.testing.assert_array_equal(plain[0], scaled[0])
    np.testing.assert_allclose(plain[1], scaled[1], atol=3e-7)


def test_half_precision_is_compared_in_single() -> None:
    generator = np.random.default_rng(0)
    queries, bank = (generator.standard_normal((n, 4)).astype(np.float16) for n in (5, 20))
    kept = queries.copy(), bank.copy()
    images, _ = search(queries, bank, 6)
    np.testing.assert_array_equal(images, reference(queries, bank, 6)[0])
    np.testing.assert_array_equal(queries, kept[0])
    np.testing.assert_array_equal(bank, kept[1])


@pytest.mark.parametrize("device", DEVICES)
def test_memory_and_threads_change_no_bit(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (on_cpu, on_torch):
        monkeypatch.setattr(module, "ROWS", 8)
        monkeypatch.setattr(module, "TILE", 32)
    generator = np.random.default_rng(0)
    queries, bank = (generator.standard_normal((n, 40)).astype(np.float32) for n in (37, 100))
    images, similarity = search(queries, bank, 9, device=device)
    for options in ({"max_bytes": 1}, {"max_bytes": 5000}, {"threads": 3}):
        other = search(queries, bank, 9, device=device, **options)
        np.testing.assert_array_equal(images, other[0])
        np.testing.assert_array_equal(similarity, other[1])


@pytest.mark.parametrize(("max_bytes", "times"), [(2**20, 1), (1, 4)])
def test_the_bank_is_read_once_for_all_queries_that_fit(
    max_bytes: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_cpu, "ROWS", 5)
    monkeypatch.setattr(on_cpu, "TILE", 16)
    bank = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    pieces: list[tuple[int, int]] = []

    def reading(start: int, stop: int) -> Features:
        pieces.append((start, stop))
        return bank[start:stop]

    for _ in nearest_images(read(bank), 20, reading, 40, 3, max_bytes=max_bytes):
        pass
    assert pieces == times * [(0, 16), (16, 32), (32, 40)]


def test_no_queries_are_no_lists() -> None:
    empty = np.empty((0, 3), dtype=np.float32)
    assert list(nearest_images(read(empty), 0, read(np.ones((2, 3))), 2, 1)) == []


@pytest.mark.parametrize("k", [0, 6])
def test_too_many_neighbours_are_an_error(k: int) -> None:
    x = np.ones((5, 2), dtype=np.float32)
    with pytest.raises(AnalysisError, match=f"{k} neighbours among 5 images"):
        search(x, x, k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("whose", ["queries", "bank"])
def test_what_is_not_finite_is_named(whose: str, value: float) -> None:
    parts = {"queries": np.ones((9, 2)), "bank": np.ones((9, 2))}
    parts[whose][6, 1] = value
    with pytest.raises(AnalysisError, match=f"image 6 of the {whose} are not finite"):
        search(parts["queries"], parts["bank"], 2)


def test_an_error_while_reading_is_passed_on() -> None:
    def broken(start: int, stop: int) -> Features:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(nearest_images(read(np.ones((2, 2))), 2, broken, 3, 1))


def _values() -> Iterator[float]:
    yield from (-np.inf, -1.5, -1.0, -1e-20, -1e-45, 0.0, 1e-45, 1e-20, 0.5, 1.0, np.inf)


def test_keys_order_similarities_and_then_images() -> None:
    values = np.array(list(_values()), dtype=np.float32)
    images = np.array([keys.LAST, 7, 0])
    found = np.array([[keys.to_keys(v[None], i[None])[0] for i in images] for v in values])
    assert (np.diff(found.reshape(-1)) > 0).all()
    assert found.min() > keys.EMPTY
    np.testing.assert_array_equal(keys.images_of(found), np.broadcast_to(images, found.shape))
    np.testing.assert_array_equal(keys.similarities_of(found), np.repeat(values[:, None], 3, 1))
    zeros = np.array([0.0, -0.0], dtype=np.float32)
    assert len(set(keys.to_keys(zeros, np.array([3, 3])).tolist())) == 1
    assert np.isneginf(keys.similarities_of(np.array([keys.EMPTY])))
