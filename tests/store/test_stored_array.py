"""Arrays of a store index as NumPy's do, and read no more than what is asked."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.filled import N_IMAGES, Content
from tests.store.test_ragged_store import COUNTS, RAGGED
from vitfeat.errors import StoreError
from vitfeat.store import shards
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore

CONTENT = Content()


@pytest.fixture
def store(written: Path) -> FeatureStore:
    return open_store(written)


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:],
        np.s_[...],
        np.s_[3],
        np.s_[-1],
        np.s_[np.int64(5)],
        np.s_[5:20],
        np.s_[7:8],
        np.s_[20:5],
        np.s_[100:],
        np.s_[::3],
        np.s_[::-1],
        np.s_[20:3:-5],
        np.s_[[0, 7, 21]],
        np.s_[[21, 0, 7, 7, 0]],
        np.s_[[-1, -22]],
        np.s_[4, 2],
        np.s_[[]],
        np.s_[np.arange(22) % 3 == 1],
        np.s_[np.zeros(22, bool)],
        np.s_[:, 2],
        np.s_[:, -1],
        np.s_[:, [0, 2]],
        np.s_[:, [2, 0]],
        np.s_[:, ::2],
        np.s_[3, 1],
        np.s_[[3, 20], 1],
        np.s_[8:16, 0, 1],
        np.s_[..., 0],
        np.s_[4, ..., 2],
        np.s_[..., 1:2],
        np.s_[9, 2, 1, 1, 7],
    ],
)
def test_indexing_is_numpy_s(store: FeatureStore, index: Any) -> None:
    expected = CONTENT.arrays()["spatial"]
    found, wanted = store["spatial"][index], expected[index]
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


def test_lists_in_several_dimensions_choose_in_each(store: FeatureStore) -> None:
    expected = CONTENT.arrays()["spatial"]
    found = store["spatial"][[20, 3, 9], [2, 0], 1, :, [1, 5]]
    assert np.array_equal(found, expected[[20, 3, 9]][:, [2, 0]][:, :, 1][..., [1, 5]])


def test_random_indices_are_numpy_s(store: FeatureStore) -> None:
    """Compared with NumPy dimension by dimension."""
    generator = np.random.default_rng(0)
    for name, expected in CONTENT.arrays().items():
        for _ in range(40):
            index: list[Any] = []
            for n in expected.shape:
                start, stop = sorted(generator.integers(-1, n + 2, 2).tolist())
                step = int(generator.integers(1, 4))
                index.append(
                    [
                        slice(max(start, 0), stop, step),
                        int(generator.integers(-n, n)),
                        generator.integers(-n, n, generator.integers(0, 5)),
                        slice(None),
                    ][generator.integers(4)]
                )
            wanted = expected
            for axis in reversed(range(expected.ndim)):
                wanted = wanted[(slice(None),) * axis + (index[axis],)]
            found = store[name][tuple(index)]
            assert np.array_equal(found, wanted), (name, index)
            assert found.shape == wanted.shape


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (22, "dimension image has 22 entries: no 22"),
        (-23, "no -23"),
        ([0, 22], "dimension image has 22 entries"),
        ((0, 3), "dimension layer has 3 entries: no 3"),
        ((0, 0, 0, 0), "4 indices for image, layer, channel"),
        ((..., ...), "more than one ellipsis"),
        (1.5, "takes a number, a slice"),
        (None, "takes a number, a slice"),
        ([[0, 1]], "takes a number, a slice"),
        (np.ones(21, bool), "has 22 entries, the mask 21"),
        ((0, "last"), "dimension layer has no entry by name"),
    ],
)
def test_an_index_that_cannot_be_is_told(store: FeatureStore, index: Any, words: str) -> None:
    with pytest.raises(IndexError) as info:
        store["cls"][index]
    assert words in str(info.value)
    assert "\n" not in str(info.value)
    assert str(info.value).startswith("cls: ")


def test_an_image_by_its_id(store: FeatureStore) -> None:
    expected, ids = CONTENT.arrays()["cls"], CONTENT.rows.image_id
    assert np.array_equal(store["cls"][ids[4]], expected[4])
    assert np.array_equal(store["cls"][ids[4], -1], expected[4, -1])
    assert np.array_equal(store["cls"][[ids[9], ids[2]]], expected[[9, 2]])
    for kind in (object, str, np.dtypes.StringDType()):
        assert np.array_equal(store["cls"][np.array([ids[9], ids[2]], kind)], expected[[9, 2]])
    with pytest.raises(StoreError, match=r"no image 'ï004\.png' \(did you mean 'class 1/ï004"):
        store["cls"]["ï004.png"]
    with pytest.raises(StoreError, match=r"no image 'class 2/ï004\.png' \(did you mean 'class 1/"):
        store["cls"]["class 2/ï004.png"]
    with pytest.raises(StoreError, match=r"no image 'klass'; image_ids has all"):
        store["cls"]["klass"]


def test_an_image_by_its_id_in_arrays_of_other_entries(tmp_path: Path) -> None:
    """Regions and tokens of an image are several; of an image that is not kept there is none."""
    RAGGED.write(tmp_path / "r.zarr")
    ragged, expected, ids = open_store(tmp_path / "r.zarr"), RAGGED.arrays(), RAGGED.rows.image_id
    for row in (0, 5, 21):
        start = sum(COUNTS[:row])
        regions = expected["regions"][start : start + COUNTS[row]]
        assert np.array_equal(ragged["regions"][ids[row]], regions)
        first, last = ragged.token_start[row : row + 2]
        assert np.array_equal(ragged["spatial"][ids[row]], expected["spatial"][first:last])
    some = Content(taps=("cls", "attention"), kept={"attention": (1, 9)})
    some.write(tmp_path / "s.zarr")
    limited, ids = open_store(tmp_path / "s.zarr"), some.rows.image_id
    assert np.array_equal(limited["attention"][ids[9]], some.arrays()["attention"][1])
    words = r"attention is kept of 2 images, and 'class 0/ï000\.png' is none of them"
    with pytest.raises(StoreError, match=words):
        limited["attention"][ids[0]]


def test_an_array_says_what_it_is(store: FeatureStore) -> None:
    array = store["spatial"]
    assert (array.ndim, len(array), array.size) == (5, N_IMAGES, 22 * 3 * 2 * 3 * 8)
    assert array.nbytes == 2 * array.size
    assert (array.dims[0], array.dtype, array.tap) == ("image", np.float16, "spatial")
    assert array.description.startswith("spatial tokens of each block's output")
    assert "spatial: float16 (image 22, layer 3, y 2, x 3, channel 8)" in repr(array)
    assert np.array_equal(np.asarray(array), CONTENT.arrays()["spatial"])
    assert np.asarray(array, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="on disk"):
        np.asarray(array, copy=False)
    with pytest.raises(TypeError):
        array[0] = 1  # type: ignore[index]


def test_one_layer_decodes_one_layer(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a layer of 8 images; 22 images are three shards of them."""
    decoded: list[int] = []
    decompress = shards.blosc.decompress

    def counted(content: memoryview) -> bytes:
        decoded.append(len(content))
        return decompress(content)

    monkeypatch.setattr(shards.blosc, "decompress", counted)
    for index, n_chunks in [
        (np.s_[:, 1], 3),
        (np.s_[5], 3),
        (np.s_[5, 1], 1),
        (np.s_[7:9, 1], 2),
        (np.s_[[0, 21], 1], 2),
        (np.s_[:, [0, 2]], 6),
        (np.s_[0:0], 0),
    ]:
        decoded.clear()
        store["spatial"][index]
        assert len(decoded) == n_chunks, index


def test_many_threads_read_one_store(store: FeatureStore) -> None:
    expected = CONTENT.arrays()
    names = list(expected)
    start = threading.Barrier(8)

    def read(thread: int) -> bool:
        start.wait()
        return all(
            np.array_equal(
                store[names[(k + thread) % len(names)]][:, k % 3],
                expected[names[(k + thread) % len(names)]][:, k % 3],
            )
            for k in range(20)
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(8)))


def _reads(store: FeatureStore) -> bool:
    expected = CONTENT.arrays()
    return all(np.array_equal(store[name][:, 1], expected[name][:, 1]) for name in expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_reads_a_store_that_its_parent_has_read(store: FeatureStore) -> None:
    """Threads of the parent's are not there: zarrs would wait for its own without an end."""
    assert _reads(store)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        results = [pool.apply_async(_reads, (store,)) for _ in range(4)]
        assert all(result.get(timeout=60) for result in results)

    child = os.fork()
    if child == 0:  # a bare fork, on the main thread
        signal.alarm(60)
        os._exit(0 if _reads(store) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_store_and_its_arrays_travel(store: FeatureStore) -> None:
    store["cls"][0]
    for copy in (pickle.loads(pickle.dumps(store)), pickle.loads(pickle.dumps(store["cls"]))):
        cls = copy["cls"] if isinstance(copy, FeatureStore) else copy
        assert np.array_equal(cls[3], CONTENT.arrays()["cls"][3])
        assert np.array_equal(cls[CONTENT.rows.image_id[3]], CONTENT.arrays()["cls"][3])
