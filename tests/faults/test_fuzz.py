"""A bit turned or a file cut anywhere: the same numbers, or one line that says what to do."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from tests.store.filled import Content, copied, flip
from tests.store.test_ragged_store import RAGGED
from vitfeat.errors import StoreError
from vitfeat.jobs.features import image_features
from vitfeat.store.info import describe
from vitfeat.store.opening import open_store
from vitfeat.store.reader import image_tokens
from vitfeat.store.verify import verify

CONTENTS = {
    "limited": Content(
        taps=("cls", "spatial", "attention", "attention_summary"), kept={"attention": (1, 9, 20)}
    ),
    "ragged": RAGGED,
}


@pytest.fixture(scope="module", params=CONTENTS)
def content(request: pytest.FixtureRequest) -> Content:
    return CONTENTS[request.param]


@pytest.fixture(scope="module")
def whole(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "m.zarr"
    content.write(path)
    return path


def _files(store: Path) -> list[Path]:
    return sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file())


def _read_everything(path: Path, content: Content) -> None:
    """Read it in the ways that readers do, and hold it against what was written."""
    expected = content.arrays()
    store = open_store(path)
    list(describe(store))
    store._repr_html_()
    assert store.image_ids == list(content.rows.image_id)
    assert store.labels.tolist() == content.rows.label.tolist()
    assert store.layers == list(content.geometry.layers)
    for name, values in expected.items():
        last = len(values) - 1
        for index in (np.s_[:], np.s_[:, 1], np.s_[last], np.s_[last, 2], np.s_[1:3, 0]):
            assert np.array_equal(store[name][index], values[index]), (name, index)
        store.rows(name)
    dataset = store.to_xarray()
    for name, values in expected.items():
        lazy = dataset[name.replace("/", ".")].isel(layer=[0, 2])
        assert np.array_equal(lazy.values, values[:, [0, 2]])
    items = store.torch_dataset("cls").__getitems__([5, 21])
    assert np.array_equal(items[1]["cls"].numpy(), expected["cls"][21, -1])
    assert np.array_equal(image_features(store, "cls", 1), expected["cls"][:, 1])
    image_tokens(store, 21, 2)


@pytest.mark.slow
def test_a_turned_bit_never_changes_numbers_silently(
    whole: Path, content: Content, tmp_path: Path
) -> None:
    """Of every file, and never another exception."""
    path = copied(whole, tmp_path / "m.zarr")
    _read_everything(path, content)
    generator = np.random.default_rng(0)
    refused = 0
    for file in _files(path):
        size = (path / file).stat().st_size
        for place in (0, size - 1, *generator.integers(0, size, 3)):
            bit = int(generator.integers(8))
            flip(path / file, int(place), bit)
            try:
                _read_everything(path, content)
            except StoreError as error:
                message = str(error)
                assert message.startswith(f"{path}: "), message
                assert "again" in message or "not a feature store" in message, message
                refused += 1
                with contextlib.suppress(StoreError):
                    assert verify(path)[1], f"{file}: verify finds nothing"
            flip(path / file, int(place), bit)
    _read_everything(path, content)
    # White space in a text may change; nothing else goes unnoticed.
    assert refused >= 0.98 * 5 * len(_files(path))


@pytest.mark.parametrize("cut", ["empty", "half", "one byte less", "one byte more", "absent"])
def test_a_file_of_another_length_is_refused_on_opening(
    whole: Path, tmp_path: Path, cut: str
) -> None:
    path = copied(whole, tmp_path / "m.zarr")
    open_store(path)
    for file in _files(path):
        text = (path / file).read_bytes()
        kept = {
            "empty": b"",
            "half": text[: len(text) // 2],
            "one byte less": text[:-1],
            "one byte more": text + b"x",
        }
        if cut == "absent":
            (path / file).unlink()
        else:
            (path / file).write_bytes(kept[cut])
        with pytest.raises(StoreError) as info:
            open_store(path)
        message = str(info.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: ")
        # The store's own metadata tell nothing once they are gone.
        assert str(file) == "zarr.json" or str(file.parent) in message, message
        (path / file).write_bytes(text)
    open_store(path)
