import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vitfeat.demo import digits
from vitfeat.errors import DataError


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.png"))
    }


def test_sizes_and_types() -> None:
    for split, n in (("train", 1198), ("test", 599)):
        images, labels = digits.load(split)
        assert images.shape == (n, 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.shape == (n,)
        assert labels.dtype == np.int64
        assert images.max() == 255
        assert images.min() == 0


def test_split_is_stratified() -> None:
    train = np.bincount(digits.load("train")[1], minlength=10)
    test = np.bincount(digits.load("test")[1], minlength=10)
    assert np.array_equal(train + test, np.bincount(load_digits().target))
    assert np.abs(test / (train + test) - 1 / 3).max() < 0.004


def test_written_files_are_the_loaded_images_once_each(tmp_path: Path) -> None:
    digits.write(tmp_path)
    places: list[int] = []
    for split in ("train", "test"):
        images, labels = digits.load(split)
        files = sorted((tmp_path / split).rglob("*.png"), key=lambda path: path.stem)
        assert len(files) == len(images)
        for path, image, label in zip(files, images, labels, strict=True):
            assert path.parent.name == str(label)
            assert np.array_equal(np.asarray(Image.open(path)), image)
            places.append(int(path.stem))
    assert sorted(places) == list(range(1797))
    source = load_digits().target
    assert all(source[int(path.stem)] == int(path.parent.name) for path in tmp_path.rglob("*.png"))


def test_writing_is_deterministic(tmp_path: Path) -> None:
    digits.write(tmp_path / "a")
    digits.write(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_enlarging_keeps_the_original_at_the_cells() -> None:
    # Averaging the 4x4 cells of the enlarged image comes close to the 8x8 original.
    images, _ = digits.load("train")
    cells = images[0, :, :, 0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    original = load_digits().images[0] * 255 / 16
    assert np.corrcoef(cells.ravel(), original.ravel())[0, 1] > 0.98


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="no split 'val'"):
        digits.load("val")  # type: ignore[arg-type]


def test_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the demo digits"):
        digits.write(tmp_path / "file")
