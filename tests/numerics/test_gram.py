from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from tests.analyses.cka.reference_cka import raw_gram
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import Gram, add, gram, token_means


class Reader:
    """Features that remember which rows were read."""

    def __init__(self, features: np.ndarray) -> None:
        self.features, self.rows = features, Counter[int]()

    def __call__(self, start: int, stop: int) -> np.ndarray:
        self.rows.update(range(start, stop))
        return self.features[start:stop].copy()


def expected(features: np.ndarray) -> dict[str, np.ndarray]:
    x = features.astype(np.float64).reshape(len(features), -1)
    mean = x.mean(axis=0)
    centred = raw_gram(x - mean)
    return {
        "centred": centred,
        "offset": (x - mean) @ mean,
        "level": mean @ mean,
        "diag": np.diag(centred),
        "row_sum": (centred - np.diag(np.diag(centred))).sum(axis=1),
    }


def assert_right(found: Gram, features: np.ndarray) -> None:
    truth = expected(features)
    scale = truth["diag"].mean()
    mean = features.astype(np.float64).mean(axis=0)
    # What multiplies a mean may err in proportion to the mean.
    towards_mean = np.sqrt(scale) * np.linalg.norm(mean) + scale
    for name, tolerance in {
        "centred": scale,
        "diag": scale,
        "row_sum": scale * np.sqrt(len(features)),
        "offset": towards_mean,
        "level": truth["level"] + scale,
    }.items():
        np.testing.assert_allclose(
            getattr(found, name), truth[name], rtol=0, atol=2e-6 * tolerance, err_msg=name
        )
    assert found.centred.dtype == np.float32
    assert found.offset.dtype == found.row_sum.dtype == found.diag.dtype == np.float64
    np.testing.assert_array_equal(found.centred, found.centred.T)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1,), (50,), (3, 4, 5)])
def test_matches_brute_force(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> None:
    x = (rng.normal(size=(40, *shape)) + 3).astype(dtype)
    assert_right(gram(Reader(x), 40), x.reshape(40, -1))


def test_raw_gram_is_restored(rng: np.random.Generator) -> None:
    x = rng.normal(size=(30, 20)) + 2
    found = gram(Reader(x.astype(np.float32)), 30)
    raw = found.centred + found.offset[:, None] + found.offset + found.level
    np.testing.assert_allclose(raw, raw_gram(x.astype(np.float32)), rtol=1e-5, atol=1e-4)


# 30 rows of 64 float16 are 3840 bytes. Slabs get a quarter of the bound, two tiles the rest.
@pytest.mark.parametrize(
    ("max_bytes", "tiles"), [(2**20, 1), (4096, 3), (1400, 8), (400, 30), (1, 30)]
)
def test_tiles_give_the_same_and_read_as_promised(
    rng: np.random.Generator, max_bytes: int, tiles: int
) -> None:
    x = (rng.normal(size=(30, 64)) + 5).astype(np.float16)
    reader = Reader(x)
    found = gram(reader, 30, max_bytes=max_bytes)
    assert_right(found, x)
    size = -(-30 // tiles)
    promised = Counter({row: max(1, row // size) for row in range(30)})
    promised[0] += 1  # one row, to learn the size
    assert reader.rows == promised


def test_memory_is_bounded(rng: np.random.Generator) -> None:
    n, d, bound = 64, 40_000, 2**20
    base = rng.normal(size=d).astype(np.float16)
    tracemalloc.start()
    gram(lambda start, stop: np.tile(base, (stop - start, 1)), n, max_bytes=bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All features are 5 bounds. Beside the tiles: the result, the reference and its float64 mean.
    assert peak < bound + 12 * n * n + 12 * d + 2 * d * 4 + 2**18


def test_large_mean_does_not_drown_the_rest(rng: np.random.Generator) -> None:
    x = (rng.normal(size=(60, 500)) + 1000 * np.sign(rng.normal(size=500))).astype(np.float32)
    for max_bytes in (2**30, 50_000):
        assert_right(gram(Reader(x), 60, max_bytes=max_bytes), x)


def test_constant_channels_leave_exactly_nothing() -> None:
    x = np.full((300, 70), 0.1, dtype=np.float32)
    for max_bytes in (2**20, 10_000):
        found = gram(Reader(x), 300, max_bytes=max_bytes)
        assert not found.centred.any()
        assert not found.offset.any()
        assert found.level == pytest.approx(0.7)


def test_one_image() -> None:
    found = gram(Reader(np.ones((1, 3), dtype=np.float16)), 1)
    assert found.centred.tolist() == [[0]]
    assert found.level == 3


def test_add_is_concatenation(rng: np.random.Generator) -> None:
    x, y = (rng.normal(size=(25, d)).astype(np.float32) + 4 for d in (8, 90))
    parts = add(gram(Reader(x), 25), gram(Reader(y), 25))
    assert_right(parts, np.concatenate([x, y], axis=1))
    whole = gram(Reader(np.concatenate([x, y], axis=1)), 25)
    for name in ("centred", "offset", "level", "row_sum", "diag"):
        np.testing.assert_allclose(
            getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-3, err_msg=name
        )


def test_add_of_other_images_fails() -> None:
    grams = [gram(Reader(np.eye(n, dtype=np.float32)), n) for n in (4, 5)]
    with pytest.raises(AnalysisError, match="4 and 5 images"):
        add(*grams)


def test_features_are_left_alone(rng: np.random.Generator) -> None:
    x = rng.normal(size=(10, 6)).astype(np.float32)
    before = x.copy()
    gram(lambda start, stop: x[start:stop], 10)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_that_are_not_finite_fail(bad: float) -> None:
    x = np.eye(6, dtype=np.float32)
    x[3, 2] = bad
    with pytest.raises(AnalysisError, match="not finite"):
        gram(Reader(x), 6)


def test_no_images_fail() -> None:
    with pytest.raises(AnalysisError, match="at least 1 image"):
        gram(Reader(np.empty((0, 3), dtype=np.float32)), 0)


@pytest.mark.parametrize("max_bytes", [2**20, 4000])
def test_torch_device_gives_the_same(rng: np.random.Generator, max_bytes: int) -> None:
    x = (rng.normal(size=(30, 64)) + 5).astype(np.float16)
    # "cpu:0" is torch's own name for the CPU: the path of a GPU without one.
    assert_right(gram(Reader(x), 30, max_bytes=max_bytes, device="cpu:0"), x)


def test_cka_jobs_import_nothing_heavy() -> None:
    code = (
        "import sys, vitfeat.analyses.cka.compute, vitfeat.numerics.gram;"
        "import vitfeat.analyses.cka.job;"
        "print(*({'torch', 'scipy', 'sklearn', 'matplotlib', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("rows", [1, 4, 10, 64])
@pytest.mark.parametrize(("start", "stop"), [(0, 22), (0, 1), (3, 4), (5, 21)])
def test_means_are_those_of_each_images_tokens(
    rng: np.random.Generator, rows: int, start: int, stop: int
) -> None:
    tokens = (rng.normal(size=(22, 2, 3, 5)) + 30).astype(np.float16)
    spans = []

    def read(begin: int, end: int) -> np.ndarray:
        spans.append((begin, end))
        return tokens[begin:end]

    found = token_means(read, 5, rows)(start, stop)
    truth = tokens[start:stop].astype(np.float64).reshape(stop - start, 6, 5).mean(axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth, rtol=1e-7, atol=0)
    # Every image once, from a chunk's first on, and never more at once than asked for.
    assert [i for span in spans for i in range(*span)] == list(range(start, stop))
    assert all(begin == start or begin % rows == 0 for begin, _ in spans)
    assert max(end - begin for begin, end in spans) <= rows


def test_the_mean_of_many_float16_is_exact() -> None:
    # In float16 the sum of 4096 ones and a half would stop at 2048.
    tokens = np.ones((3, 64, 64, 2), dtype=np.float16)
    tokens[:, 0, 0] = 0.5
    found = token_means(lambda a, b: tokens[a:b], 2, 2)(0, 3)
    np.testing.assert_array_equal(found, np.full((3, 2), 1 - 0.5 / 4096, dtype=np.float32))
