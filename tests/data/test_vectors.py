"""Features from elsewhere: read from any of their files, they become one store, or one line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitfeat
from tests.data.pictures import encode, noise
from tests.store.filled import files
from vitfeat.analyses.cka.gram_job import write_grams
from vitfeat.analyses.cka.job import cka_rows
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.job import write_clustering
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.knn.job import write_knn
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.rows import read_scores
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.vectors import Vectors, read_vectors
from vitfeat.errors import ConfigError, DataError, StoreError
from vitfeat.explorer.catalog import Listed
from vitfeat.extraction.importing import import_vectors
from vitfeat.numerics.gramfile import GramFile

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 22
WIDTHS = {"V1": 7, "V4": 5, "IT": 9}
Layers = dict[str, np.ndarray]
Write = Callable[[list[str], Layers, Path], Path]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitfeat.store.layout._MAX_BLOCK", 8)


@pytest.fixture(scope="module")
def photos_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for i in range(N):
        path = root / ("cat" if i % 2 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(noise(i, 20, 16), "PNG"))
    return root


@pytest.fixture(scope="module")
def index(photos_of_two: Path) -> Index:
    return build_index(DatasetSpec(name="photos", layout="folder", root=photos_of_two))


@pytest.fixture(scope="module")
def layers() -> Layers:
    generator = np.random.default_rng(3)
    return {k: generator.normal(size=(N, w)).astype(np.float32) for k, w in WIDTHS.items()}


def as_npz(ids: list[str], layers: Layers, folder: Path) -> Path:
    np.savez(folder / "f.npz", image_id=np.array(ids), label=np.zeros(len(ids)), **layers)
    return folder / "f.npz"


def as_npy_folder(ids: list[str], layers: Layers, folder: Path) -> Path:
    # In the order of names, which is another than the brain's.
    for place, (name, array) in enumerate(layers.items()):
        np.save(folder / f"{place}-{name}.npy", array)
    np.save(folder / "image_id.npy", np.array(ids))
    return folder


def as_hdf5(ids: list[str], layers: Layers, folder: Path) -> Path:
    with h5py.File(folder / "f.h5", "w", track_order=True) as file:
        file["image_id"] = ids
        for name, array in layers.items():
            file[name] = array.astype(np.float64)
    return folder / "f.h5"


def as_long_parquet(ids: list[str], layers: Layers, folder: Path) -> Path:
    """A row for each image and layer, in an order of its own in each layer."""
    rows: dict[str, list[Any]] = {"image_id": [], "layer": [], "vector": []}
    for place, (name, array) in enumerate(layers.items()):
        for row in np.random.default_rng(place).permutation(len(ids)).tolist():
            rows["image_id"].append(ids[row])
            rows["layer"].append(name)
            rows["vector"].append(array[row].tolist())
    pq.write_table(pa.table(rows), folder / "f.parquet")
    return folder / "f.parquet"


def as_wide_parquet(ids: list[str], layers: Layers, folder: Path) -> Path:
    columns = {name: array.tolist() for name, array in layers.items()}
    pq.write_table(pa.table({"image_id": ids, **columns}), folder / "f.parquet")
    return folder / "f.parquet"


WAYS = [as_npz, as_npy_folder, as_hdf5, as_long_parquet, as_wide_parquet]


@pytest.mark.parametrize("write", WAYS, ids=lambda w: w.__name__)
def test_files_of_all_kinds_in_any_order_give_one_store(
    write: Write, index: Index, layers: Layers, tmp_path: Path
) -> None:
    """Also of more images than the dataset has."""
    order = np.random.default_rng(0).permutation(N + 2)
    ids = [*index.image_id, "other/a.png", "other/b.png"]
    more = {k: np.concatenate([v, v[:2]])[order] for k, v in layers.items()}
    path = write([ids[i] for i in order], more, tmp_path)
    sealed = import_vectors(read_vectors(path), index, tmp_path / "brain.zarr", "brain")
    store = vitfeat.open(tmp_path / "brain.zarr")
    assert store.image_ids == index.image_id
    assert store.labels.tolist() == index.label.tolist()
    assert store["spatial"].shape == (N, 3, 1, 1, 9)
    for place, (name, array) in enumerate(layers.items()):
        values = np.asarray(store["spatial"][:, place, 0, 0])
        np.testing.assert_array_equal(values[:, : WIDTHS[name]], array)
        assert not values[:, WIDTHS[name] :].any()
    names = [f"{i}-{n}" for i, n in enumerate(layers)] if write is as_npy_folder else [*layers]
    assert store.layer_names == names
    assert store.layer_positions(names[1]) == [1]
    assert sealed["forward_images"] == 0
    assert "vectors of 2 images that the dataset has not: left out" in store.attributes["notes"]
    assert main(["verify", str(tmp_path / "brain.zarr")]) == 0


def test_one_array_of_all_layers_and_numbers_as_names(
    index: Index, layers: Layers, tmp_path: Path
) -> None:
    stack = np.stack([layers["V1"], -layers["V1"]], axis=1)
    np.save(tmp_path / "a.npy", stack[::-1])
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id"], *([i] for i in reversed(index.image_id))])
    numbered = {"11": layers["V1"], "2": -layers["V1"]}
    cases = {tmp_path / "a.npy": [0, 1], as_npz(index.image_id, numbered, tmp_path): [2, 11]}
    for path, numbers in cases.items():
        out = tmp_path / f"{path.stem}{path.suffix[1:]}.zarr"
        import_vectors(read_vectors(path), index, out, "m")
        store = vitfeat.open(out)
        assert store.layers == numbers
        assert store.layer_names == []
        held = np.asarray(store["spatial"][:, :, 0, 0])
        np.testing.assert_array_equal(held, stack if numbers == [0, 1] else stack[:, ::-1])
    # Without ids the rows are the dataset's.
    (tmp_path / "a.csv").unlink()
    import_vectors(read_vectors(tmp_path / "a.npy"), index, tmp_path / "b.zarr", "m")
    held = np.asarray(vitfeat.open(tmp_path / "b.zarr")["spatial"][:, :, 0, 0])
    np.testing.assert_array_equal(held, stack[::-1])


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By its definition: Kornblith et al. 2019, equation 3."""
    x, y = (np.asarray(v, np.float64) - v.mean(0, dtype=np.float64) for v in (x, y))
    norm = np.linalg.norm
    return float(norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


@pytest.fixture
def stores(index: Index, layers: Layers, photos_of_two: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Of a model, and of imported features, of the same images."""
    paths = tmp_path / "photos" / "dino.zarr", tmp_path / "photos" / "brain.zarr"
    settings = {"progress": False, "device": "cpu", "workers": 0}
    vitfeat.extract("demo-dino", photos_of_two, paths[0], **settings)
    import_vectors(Vectors.of("x", index.image_id, layers), index, paths[1], "brain")
    return paths


def test_cka_with_a_model_is_that_of_the_definition(
    stores: tuple[Path, Path], layers: Layers, tmp_path: Path
) -> None:
    """Zeros behind narrower layers change nothing, and a vector is every kind of token."""
    kinds = ("cls", "mean", "spatial", "all")
    settings = CkaSettings(tokens=kinds, without_cls="mean", estimators=("biased",))
    for store in stores:
        write_grams(store, tmp_path / store.stem / "{tokens}.st", settings, device="cpu")
    dino = vitfeat.open(stores[0])
    cls, spatial = (np.asarray(dino[name][:], np.float64) for name in ("cls", "spatial"))
    flat = spatial.reshape(N, 6, -1)
    features = {
        "cls": cls,
        "mean": spatial.mean((2, 3)),
        "spatial": flat,
        "all": np.concatenate([cls, flat], axis=2),
    }
    for kind in kinds:
        a, b = (GramFile(tmp_path / s.stem / f"{kind}.st") for s in stores)
        rows = list(cka_rows(a, b, settings))
        assert len(rows) == 6 * 3
        for row in rows:
            other = [*layers.values()][row.layer_b]
            expected = biased_cka(features[kind][:, row.layer_a], other)
            assert row.cka == pytest.approx(expected, abs=2e-5)


def test_features_of_a_store_give_its_cka_when_they_are_imported(
    stores: tuple[Path, Path], index: Index, tmp_path: Path
) -> None:
    dino = vitfeat.open(stores[0])
    for layer in range(6):
        np.save(tmp_path / f"{layer}.npy", np.asarray(dino["cls"][:, layer]))
    again = tmp_path / "photos" / "again.zarr"
    import_vectors(read_vectors(tmp_path), index, again, "again")
    settings = CkaSettings(tokens=("cls",), without_cls="mean")
    for store in (stores[0], again):
        write_grams(store, tmp_path / f"{store.stem}.st", settings, device="cpu")
    a, b = (GramFile(tmp_path / f"{store.stem}.st") for store in (stores[0], again))
    own, between = ([row.cka for row in cka_rows(a, other, settings)] for other in (a, b))
    np.testing.assert_allclose(between, own, atol=1e-7)


def test_tasks_take_a_vector_for_the_mean_and_leave_out_the_rest(
    stores: tuple[Path, Path], index: Index, layers: Layers, tmp_path: Path
) -> None:
    imported = vitfeat.open(stores[1])
    other = tmp_path / "photos"
    train = build_index(DatasetSpec(name="t", layout="folder", root=_others(tmp_path)))
    generator = np.random.default_rng(8)
    learnt = {k: generator.normal(size=(len(train), w)) for k, w in WIDTHS.items()}
    import_vectors(Vectors.of("y", None, learnt), train, other / "train.zarr", "brain")
    out = tmp_path / "knn.csv"
    settings = KnnSettings(datasets=("d",), train={"d": "t"}, neighbours=(3,))
    write_knn(stores[1], other / "train.zarr", out, settings, device="cpu")
    rows = [row for row in read_scores(out) if row.score == "top1"]
    assert {row.features for row in rows} == {"mean"}
    for row, name in zip(rows, layers, strict=True):
        x, y = learnt[name].astype(np.float64), layers[name].astype(np.float64)
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
        near = np.argsort(-(y @ x.T), axis=1)[:, :3]
        votes = np.exp(np.take_along_axis(y @ x.T, near, 1) / settings.temperature)
        dogs = np.where(train.label[near] == 1, votes, -votes).sum(1) > 0
        assert row.value == pytest.approx((dogs == (index.label == 1)).mean())
    assert vitfeat.knn(
        vitfeat.open(other / "train.zarr")["spatial"][:, 0],
        train.label,
        imported["spatial"][:, 0],
        index.label,
        neighbours=3,
        device="cpu",
    )[3]["top1"] == pytest.approx(rows[0].value)
    kinds = ClusteringSettings(datasets=("d",), features=("cls", "mean", "attention_mean"))
    write_clustering(stores[1], tmp_path / "clusters.csv", kinds)
    assert {row.features for row in read_scores(tmp_path / "clusters.csv")} == {"mean"}


def _others(folder: Path) -> Path:
    for i in range(16):
        path = folder / "train" / ("cat" if i % 2 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(noise(100 + i, 20, 16), "PNG"))
    return folder / "train"


def test_what_is_known_of_it_is_shown(
    stores: tuple[Path, Path],
    index: Index,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info", str(stores[1])]) == 0
    said = capsys.readouterr().out
    assert "brain (features from elsewhere)" in said
    assert "layers       0 V1, 1 V4, 2 IT" in said
    assert "behind which zeros stand up to 9: V1 7, V4 5, IT 9" in said
    store = vitfeat.open(stores[1])
    assert "whole: the image" in store._repr_html_()
    listed = Listed("features", "photos", "brain", "x", store, stores[1])
    assert listed.described()["grid"] == [1, 1]
    places = {name: row for row, name in enumerate(index.image_id)}
    assert listed.details(places, index)["boxes"] == [[0.0, 0.0, 1.0, 1.0]]


def test_an_interrupted_import_goes_on(
    index: Index, layers: Layers, tmp_path: Path, stores: tuple[Path, Path]
) -> None:
    vectors, done = Vectors.of("x", index.image_id, layers), []
    out = tmp_path / "again" / "brain.zarr"

    def stop(n: int) -> None:
        done.append(n)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_vectors(vectors, index, out, "brain", on_images=stop)
    assert not out.exists()
    import_vectors(vectors, index, out, "brain", on_images=done.append)
    assert done == [8, 8, 6]
    assert files(out) == files(stores[1])
    # The same once more: nothing to do. Other numbers: only if asked.
    import_vectors(vectors, index, out, "brain", on_images=done.append)
    assert len(done) == 3
    other = Vectors.of("x", index.image_id, {**layers, "V1": -layers["V1"]})
    with pytest.raises(StoreError, match=r"features\.sha256: .* pass --replace"):
        import_vectors(other, index, out, "brain")
    import_vectors(other, index, out, "brain", replace=True)
    assert vitfeat.open(out)["spatial"][0, 0, 0, 0, 0] == -layers["V1"][0, 0]


def test_one_test_of_everything_before_anything_is_written(
    index: Index, layers: Layers, tmp_path: Path
) -> None:
    broken = {**layers, "IT": layers["IT"].copy()}
    broken["IT"][N - 1, 2] = np.nan
    with pytest.raises(DataError, match=rf"x: layer IT: {index.image_id[-1]} has a value that is"):
        import_vectors(Vectors.of("x", index.image_id, broken), index, tmp_path / "a.zarr", "m")
    assert not list(tmp_path.glob("a.zarr*"))


IDS = [f"{i}.png" for i in range(4)]
ONES = np.ones((4, 3))


@pytest.mark.parametrize(
    ("ids", "arrays", "line"),
    [
        (IDS, {"a": ONES, "b": np.ones((4, 2, 3))}, "has a, b: give one array of all layers, or"),
        (IDS, {}, "holds no features beside image_id"),
        (IDS, {"a": np.ones(4)}, r"layer a: found float64 of shape \(4,\); needed are numbers"),
        (IDS, {"a": np.full((4, 2), "x")}, r"layer a: found <U1 of shape \(4, 2\)"),
        (IDS, {"a": ONES[:3]}, "layer a: has 3 rows for 4 ids"),
        (None, {"a": ONES, "b": ONES[:1]}, "layer b: has 1 row for 4 rows of the first layer"),
    ],
)  # fmt: skip
def test_what_arrays_cannot_be(ids: Any, arrays: Any, line: str) -> None:
    with pytest.raises(DataError, match=f"^x: {line}"):
        Vectors.of("x", ids, arrays)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda ids: [*ids[:-1], ids[0]], "has the image cat/01.png twice; remove one"),
        (
            lambda ids: [i.partition("/")[2] for i in ids],
            "lacks 22 images of the dataset's 22, first cat/01.png; its own ids begin with 01.png",
        ),
        (lambda ids: [*ids[:-1], "z"], "lacks 1 image of the dataset's 22, first dog/20.png"),
        (lambda _: None, ""),
    ],
)
def test_images_that_are_not_those_of_the_dataset(
    index: Index, layers: Layers, change: Any, line: str
) -> None:
    vectors = Vectors.of("x", change(index.image_id), layers)
    if line:
        with pytest.raises(DataError, match=f"^x: {re.escape(line)}"):
            vectors.rows_of(index)
    else:
        assert vectors.rows_of(index).tolist() == list(range(N))
        with pytest.raises(DataError, match="x: has 22 rows without ids, and the dataset 4 images"):
            vectors.rows_of(index.only(range(4)))


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _parquet(**columns: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", b"x", r"is no file of features: read are \.npz, \.npy, \.h5, \.hdf5, \.parquet"),
        ("a.npz", b"", r"cannot be read \("),
        ("a.npz", _npz(a=ONES)[:-40], r"cannot be read \("),
        ("a.npz", _npz(a=np.array([{}, []], dtype=object)), r"cannot be read \(ValueError"),
        ("a.h5", b"no", r"cannot be read \(OSError"),
        ("a.parquet", b"no", r"cannot be read \(ArrowInvalid"),
        (
            "a.parquet",
            _parquet(image_id=IDS, x=[1, 2, 3, 4]),
            "has the columns image_id, x; needed",
        ),
        (
            "a.parquet",
            _parquet(image_id=IDS, x=[[1.0], [1.0, 2.0], [1.0], [2.0]]),
            "layer 0: has vectors of 1 to 2 numbers; all must be of one length",
        ),
        (
            "a.parquet",
            _parquet(image_id=IDS, x=[[1.0], None, [1.0], [2.0]]),
            "layer 0: has rows without a vector",
        ),
        (
            "a.parquet",
            _parquet(image_id=["a", "b", "a"], layer=["V1", "V1", "IT"], x=[[1.0]] * 3),
            "layer IT: is not of the images of the layer before it, such as b; every layer",
        ),
        (
            "a.parquet",
            _parquet(image_id=["a", "b", "a", "a"], layer=[1, 1, 2, 2], x=[[1.0]] * 4),
            "layer 2: is not of the images",
        ),
    ],
)
def test_what_files_cannot_be(name: str, content: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path / name))}: {line}"):
        read_vectors(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"a\.npz: does not exist"):
        read_vectors(tmp_path / "a.npz")


def test_the_command_and_the_function_of_notebooks(
    index: Index, layers: Layers, photos_of_two: Path, tmp_path: Path
) -> None:
    index.write(tmp_path / "photos.csv")
    source = as_npz(index.image_id, layers, tmp_path)
    out, manifest = tmp_path / "a.zarr", tmp_path / "there" / "a.json"
    manifest.parent.mkdir()
    words = ["import", str(source), "--model", "brain", "--index", str(tmp_path / "photos.csv")]
    assert main([*words, "--out", str(out), "--manifest", str(manifest)]) == 0
    assert manifest.read_bytes() == (tmp_path / "a.json").read_bytes()
    one, two, three = (
        vitfeat.import_features(given, images, tmp_path / f"{n}.zarr", model="brain", ids=ids)
        for n, (given, images, ids) in enumerate(
            [
                (source, tmp_path / "photos.csv", None),
                (layers, photos_of_two, None),
                ({k: v[::-1] for k, v in layers.items()}, photos_of_two, index.image_id[::-1]),
            ]
        )
    )
    assert {s.fingerprint for s in (one, two, three)} == {vitfeat.open(out).fingerprint}
    with pytest.raises(ConfigError, match="ids: a file has its own"):
        vitfeat.import_features(source, photos_of_two, out, model="m", ids=index.image_id)
