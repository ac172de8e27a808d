"""Features in files for other programs: what the store holds, which images, and back again."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitfeat
from vitfeat.cli import main
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.vectors import read_vectors
from vitfeat.errors import AnalysisError
from vitfeat.extraction.importing import import_vectors
from vitfeat.jobs import export
from vitfeat.jobs.export import export_features
from vitfeat.store.reader import FeatureStore

h5py = pytest.importorskip("h5py")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES = ["cat"] * 3 + ["dog"] * 3


@pytest.fixture
def store(photos: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setattr(export, "_IMAGES", 4)  # the last piece is short
    out = photos.parent / "features" / "dino.zarr"
    taps = ["cls", "spatial"]
    return vitfeat.extract("demo-dino", photos, out, taps=taps, progress=False, workers=0)


def cls(store: FeatureStore, layer: int) -> np.ndarray:
    return np.asarray(store["cls"][:, layer], np.float32)


def test_parquet_has_a_row_an_image_and_layer(store: FeatureStore, tmp_path: Path) -> None:
    words = ["export", str(store.path), str(tmp_path / "a.parquet"), "--layers", "1", "last"]
    assert main(words) == 0
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["image_id"] == store.image_ids * 2
    assert table["label"] == [0, 0, 0, 1, 1, 1] * 2
    assert table["class_name"] == CLASSES * 2
    assert table["layer"] == [1] * 6 + [5] * 6
    expected = np.concatenate([cls(store, 1), cls(store, 5)])
    np.testing.assert_array_equal(np.array(table["vector"], np.float32), expected)


def test_hdf5_has_an_array_a_layer(store: FeatureStore, tmp_path: Path) -> None:
    assert export_features(store, tmp_path / "a.h5", "mean", "all") == 6
    with h5py.File(tmp_path / "a.h5") as file:
        assert [v.decode() for v in file["image_id"][:]] == store.image_ids
        assert [v.decode() for v in file["class_name"][:]] == CLASSES
        assert file["label"][:].tolist() == [0, 0, 0, 1, 1, 1]
        for layer in range(6):
            mean = np.asarray(store["spatial"][:, layer], np.float64).mean((1, 2))
            np.testing.assert_allclose(file[str(layer)][:], mean, atol=1e-6)


def test_npy_has_one_layer_and_a_table(store: FeatureStore, tmp_path: Path) -> None:
    export_features(store, tmp_path / "a.npy", layers=2)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), cls(store, 2))
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == store.image_ids
    assert [row["class_name"] for row in rows] == CLASSES


def test_images_go_with_their_vectors(store: FeatureStore, photos: Path, tmp_path: Path) -> None:
    index = build_index(DatasetSpec(name="images", layout="folder", root=photos))
    index.write(tmp_path / "photos.csv")
    out = tmp_path / "atlas.parquet"
    images = ["--images", str(tmp_path / "photos.csv"), str(photos)]
    assert main(["export", str(store.path), str(out), *images]) == 0
    for row in pq.read_table(out).to_pylist():
        assert row["image"]["path"] == row["image_id"]
        assert row["image"]["bytes"] == (photos / row["image_id"]).read_bytes()
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (48, 40)
    # It is a dataset as Hugging Face has it.
    again = build_index(DatasetSpec(name="again", layout="parquet", root=out))
    assert again.sha256 == index.sha256


@pytest.mark.parametrize("name", ["a.parquet", "a.h5", "a.npy"])
def test_what_is_exported_is_imported(
    store: FeatureStore, photos: Path, tmp_path: Path, name: str
) -> None:
    layers = 3 if name == "a.npy" else [1, 3]
    export_features(store, tmp_path / name, layers=layers)
    index = build_index(DatasetSpec(name="images", layout="folder", root=photos))
    import_vectors(read_vectors(tmp_path / name), index, tmp_path / "b.zarr", "m")
    back = vitfeat.open(tmp_path / "b.zarr")
    assert back.layers == ([0] if name == "a.npy" else [1, 3])
    np.testing.assert_array_equal(back["spatial"][:, -1, 0, 0], cls(store, 3))
    x, y = back["spatial"][:, -1], cls(store, 5)
    assert vitfeat.cka(x, y) == vitfeat.cka(cls(store, 3), y)


def test_what_cannot_be_written_is_one_line(
    store: FeatureStore, photos: Path, tmp_path: Path
) -> None:
    index = build_index(DatasetSpec(name="images", layout="folder", root=photos))
    images = index, photos
    for name, kind, layers, given, line in (
        ("a.mat", "cls", "last", None, r"no file of features; written are \.parquet, \.h5"),
        ("a.npy", "cls", "all", None, "holds one layer, not 6; write"),
        ("a.h5", "cls", "last", images, "holds no images; write"),
        ("a.h5", "attention_mean", "last", None, "no attention_mean in this store"),
        ("a.parquet", "cls", "last", (index.only(range(3)), photos), "is not of the images"),
    ):
        with pytest.raises(AnalysisError, match=line):
            export_features(store, tmp_path / name, kind, layers, images=given)
    (photos / "cat/a.png").write_bytes(b"another")
    with pytest.raises(vitfeat.errors.VitfeatError, match="has changed since it was indexed"):
        export_features(store, tmp_path / "a.parquet", images=images)
    assert not list(tmp_path.glob("a.*"))
