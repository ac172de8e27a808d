"""Images in containers: they are what they are as files, and are read in place."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vitfeat
from tests.data.pictures import encode, noise
from tests.data.test_unchanged import LONG_AGO, age
from tests.store.filled import files
from vitfeat.cli import main
from vitfeat.config.parsing import parse_config
from vitfeat.data import unchanged
from vitfeat.data.containers import bytes_of, pixels_file
from vitfeat.data.images import rgb_from_bytes
from vitfeat.data.index import Index
from vitfeat.data.indexed import rgb_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import LAYOUTS, DatasetSpec
from vitfeat.data.unchanged import token, write_snapshot
from vitfeat.errors import ConfigError, DataError
from vitfeat.plan.checks import foresee
from vitfeat.plan.disk import Size, dataset_size

h5py = pytest.importorskip("h5py")
av = pytest.importorskip("av")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Images = dict[str, bytes]


@pytest.fixture(scope="module")
def images() -> Images:
    """Two dozen images of three classes, by their names in the order of a folder."""
    names = [f"{c}/{i:02}" for c in ("cat", "dog", "owl") for i in range(8)]
    kinds = [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")]
    return {
        f"{name}.{kinds[i % 3][0]}": encode(noise(i, 24 + i % 5, 20), kinds[i % 3][1])
        for i, name in enumerate(names)
    }


def as_folder(images: Images, root: Path) -> dict[str, Any]:
    for name, data in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return {"layout": "folder"}


def tar_of(path: Path, members: Iterator[tuple[str, bytes]] | Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, dict) else members
    with tarfile.open(path, "w") as tar:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def as_tars(images: Images, root: Path) -> dict[str, Any]:
    """Shards in an order of their own, with a label beside each image."""
    for shard in range(3):
        members = {}
        for name in [*images][shard::3][::-1]:
            members[f"./{name}"] = images[name]
            members[f"./{name.rpartition('.')[0]}.cls"] = name.partition("/")[0].encode()
        tar_of(root / f"{shard:05}.tar", members)
    return {"layout": "webdataset"}


def as_tar_of_folder(images: Images, root: Path) -> dict[str, Any]:
    tar_of(root / "all.tar", images)
    return {"layout": "webdataset", "labels": "folder"}


def as_zip(images: Images, root: Path, how: int = zipfile.ZIP_STORED) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "all.zip", "w", how) as archive:
        for name in reversed(images):
            archive.writestr(name, images[name])
    return {"layout": "webdataset", "labels": "folder"}


def as_deflated_zip(images: Images, root: Path) -> dict[str, Any]:
    return as_zip(images, root, zipfile.ZIP_DEFLATED)


def table_of(images: Images) -> Any:
    """A table as Hugging Face's datasets write it."""
    names = sorted({name.partition("/")[0] for name in images})
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": names},
    }
    rows = [{"bytes": data, "path": name} for name, data in images.items()]
    labels = [names.index(name.partition("/")[0]) for name in images]
    table = pa.table({"image": rows, "label": pa.array(labels, pa.int64())})
    said = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": said})


def as_parquet(images: Images, root: Path) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    table = table_of(images)
    for part in range(2):
        name = f"train-{part:05}-of-00002.parquet"
        pq.write_table(table.slice(part * 12, 12), root / name, row_group_size=5)
    return {"layout": "parquet", "split": "train"}


def as_arrow(images: Images, root: Path) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    table = table_of(images)
    path = root / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return {"layout": "parquet"}


def as_encoded_hdf5(images: Images, root: Path) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "a.h5", "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        file["images"] = np.array(
            [np.frombuffer(d, np.uint8) for d in images.values()] + [None], dtype=object
        )[:-1].astype(kind)
        file["names"] = [*images]
        file["classes"] = [name.partition("/")[0] for name in images]
    return {"layout": "hdf5", "ids": "names", "labels": "classes"}


CONTAINERS = {
    "tars": as_tars,
    "tar of a folder": as_tar_of_folder,
    "zip": as_zip,
    "deflated zip": as_deflated_zip,
    "parquet": as_parquet,
    "arrow": as_arrow,
    "encoded hdf5": as_encoded_hdf5,
}
Write = Callable[[Images, Path], dict[str, Any]]
every_container = pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)


def spec_of(root: Path, said: dict[str, Any], **more: Any) -> DatasetSpec:
    return DatasetSpec.from_config("d", said | {"root": str(root)} | more)


def as_usual(index: Index) -> list[tuple[Any, ...]]:
    return [row[:9] for row in index.rows()]


@every_container
def test_an_index_is_that_of_the_files_in_a_folder(
    images: Images, tmp_path: Path, write: Write
) -> None:
    folder = build_index(spec_of(tmp_path / "a", as_folder(images, tmp_path / "a")))
    spec = spec_of(tmp_path / "b", write(images, tmp_path / "b"))
    index = build_index(spec, workers=2)
    assert as_usual(index) == as_usual(folder)
    assert index.fingerprint == folder.fingerprint
    index.write(tmp_path / "index.csv")
    read = Index.read(tmp_path / "index.csv")
    assert [*read.rows()] == [*index.rows()]
    # In any order, not only in that of the rows.
    for row in reversed([*read.rows()]):
        assert bytes_of(spec.root, row.image_id, row.place) == images[row.image_id]


@pytest.fixture(scope="module")
def of_folder(images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    top = tmp_path_factory.mktemp("folder")
    return store_of(top, as_folder(images, top / "data"))


def store_of(top: Path, said: dict[str, Any]) -> dict[str, bytes]:
    out = top / "d.zarr"
    settings = {"progress": False, "device": "cpu", "workers": 0, "taps": ["cls", "spatial"]}
    vitfeat.extract("demo-dino", said | {"root": str(top / "data")}, out, **settings)
    return files(out) | {"manifest": out.with_suffix(".json").read_bytes()}


@every_container
def test_a_store_has_the_bytes_of_the_one_from_a_folder(
    images: Images, tmp_path: Path, write: Write, of_folder: dict[str, bytes]
) -> None:
    assert store_of(tmp_path, write(images, tmp_path / "data")) == of_folder


def test_processes_read_containers_each_for_itself(images: Images, tmp_path: Path) -> None:
    from vitfeat.data.loader import load_batches
    from vitfeat.data.views import SquareView

    spec = spec_of(tmp_path, as_parquet(images, tmp_path))
    index, batches = build_index(spec), [range(i, i + 6) for i in range(0, 24, 6)]
    view = SquareView((16, 16))
    one, two = (
        [*load_batches(index, spec.root, view, batches, workers=workers)] for workers in (0, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize("axes", ["HWC", "CHW", "grey"])
def test_pixels_of_an_array(tmp_path: Path, axes: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
    want = [image if axes != "grey" else image[..., :1].repeat(3, 2) for image in pixels]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = {"HWC": pixels, "CHW": pixels.transpose(0, 3, 1, 2), "grey": pixels[..., 0]}[axes]
        file.create_dataset("inner/images", data=stored, chunks=True)
        file["label"] = [3, 3, 0, 1, 1]
    said = {"layout": "hdf5", "labels": "label"} | ({"axes": "CHW"} if axes == "CHW" else {})
    spec = spec_of(tmp_path / "a.h5", said)
    index = build_index(spec)
    assert index.image_id == [f"a.h5#row={row}" for row in range(5)]
    assert index.label.tolist() == [3, 3, 0, 1, 1]
    for row, pixels_of_row in zip(index.rows(), want, strict=True):
        np.testing.assert_array_equal(np.asarray(rgb_of(row, spec.root)), pixels_of_row)


FPS = 25


def write_video(path: Path, n: int = 60, rotation: int = 0, codec: str = "libx264") -> None:
    """A video whose frames are grey, each of its own brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.options = {"g": "12", "bf": "2"}
        for i in range(n):
            frame = np.full((32, 48, 3), 2 * i + 40, np.uint8)
            frame[:16] = 20
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        (None, [*range(60)]),
        (5.0, [*range(0, 60, 5)]),
        # Times of 0.3 s lie between frames: the next one is taken.
        (10 / 3, [0, 8, 15, 23, 30, 38, 45, 53]),
    ],
)
def test_frames_of_a_video(tmp_path: Path, rate: float | None, wanted: list[int]) -> None:
    write_video(tmp_path / "walk/clip.mp4")
    spec = spec_of(tmp_path, {"layout": "video", "rate": rate, "labels": "folder"})
    index = build_index(spec)
    assert index.image_id == [f"walk/clip.mp4#t={i / FPS:.3f}" for i in wanted]
    assert set(index.class_name) == {"walk"}
    for row in [*index.rows()][::-1]:
        i = round(float(row.image_id.partition("#t=")[2]) * FPS)
        rgb = np.asarray(rgb_of(row, spec.root)).astype(int)
        assert rgb.shape == (32, 48, 3)
        # The codec is lossy; neighbours differ by 2.
        assert abs(rgb[20:].mean() - (2 * i + 40)) <= 1, i
        assert abs(rgb[:12].mean() - 20) < 2


def test_pixels_are_taken_as_the_file_that_pillow_writes() -> None:
    for image in (noise(0), noise(1).convert("L")):
        data = pixels_file(np.asarray(image))
        assert data == encode(image, "PPM")
        assert rgb_from_bytes(data, "x").tobytes() == image.convert("RGB").tobytes()


def test_labels_of_json_members_and_images_by_their_ending(tmp_path: Path) -> None:
    data, mask = encode(noise(0)), encode(noise(1))
    members = {}
    for i, label in enumerate((7, 2)):
        members |= {
            f"{i}.jpg": data,
            f"{i}.seg.png": mask,
            f"{i}.json": json.dumps({"cl": label}).encode(),
        }
    tar_of(tmp_path / "a.tar", members)
    said = {"layout": "webdataset", "images": "jpg", "labels": "cl"}
    index = build_index(spec_of(tmp_path, said))
    assert (index.image_id, index.label.tolist()) == (["0.jpg", "1.jpg"], [7, 2])
    with pytest.raises(ConfigError, match=r"0\.jpg and 0\.seg\.png in one sample"):
        build_index(spec_of(tmp_path, said | {"images": None}))


def test_ids_from_a_column_and_from_places(images: Images, tmp_path: Path) -> None:
    table = table_of(images).append_column("n", pa.array(range(100, 124)))
    pq.write_table(table, tmp_path / "a.parquet")
    named, placed = (
        build_index(spec_of(tmp_path, {"layout": "parquet", "ids": ids})) for ids in ("n", "place")
    )
    assert named.image_id[:2] == ["100", "101"]
    assert placed.image_id[:2] == ["a.parquet#row=0", "a.parquet#row=1"]
    assert placed.sha256 == named.sha256


def test_an_image_that_is_broken_in_its_container_is_skipped(
    images: Images, tmp_path: Path
) -> None:
    said = as_tars(images | {"cat/00.png": b"no image"}, tmp_path)
    with pytest.raises(DataError, match=r"cat/00\.png: not an image"):
        build_index(spec_of(tmp_path, said))
    index = build_index(spec_of(tmp_path, said, on_error="skip"))
    assert [name for name, _ in index.skipped] == ["cat/00.png"]
    assert len(index) == 23


@every_container
def test_a_container_that_was_written_anew_is_looked_into(
    images: Images, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "TICK_NS", -(10**12))
    root, path = tmp_path / "data", tmp_path / "index.csv"
    spec = spec_of(root, write(images, root))
    age(root)

    def indexed() -> None:
        told, index = token(spec, path), build_index(spec)
        index.write(path)
        write_snapshot(spec, index, path, told, LONG_AGO * 2 * 10**9)

    def written(what: Images) -> None:
        # Beside, and moved: readers of this process have the old files open.
        write(what, tmp_path / "new")
        for file in (tmp_path / "new").iterdir():
            file.replace(root / file.name)

    indexed()
    before = token(spec, path)
    for file in root.rglob("*"):
        os.utime(file)
    assert token(spec, path) == before
    # Other pixels under the same names.
    written(images | {"dog/00.webp": encode(noise(99), "WEBP")})
    assert (changed := token(spec, path)) != before
    indexed()
    assert token(spec, path) == changed
    # One image less.
    written({name: data for name, data in images.items() if name != "owl/07.webp"})
    assert token(spec, path) != changed


def test_a_container_that_changed_after_the_index_is_an_error(
    images: Images, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, as_tar_of_folder(images, tmp_path))
    index = build_index(spec)
    as_tar_of_folder(dict(reversed(images.items())), tmp_path)
    with pytest.raises(DataError, match="changed since it was indexed"):
        rgb_of(index.row(0), spec.root)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


@every_container
def test_a_container_that_is_cut_off_is_one_line(
    images: Images, tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    said = write(images, tmp_path / "data")
    file = max((tmp_path / "data").iterdir())
    cut(file)
    flags = [w for k, v in said.items() for w in (f"--{k}", v)]
    command = ["index", "d", *flags, "--root", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path / "i.csv")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert file.name in line
    assert "damaged or cut off" in line
    assert not (tmp_path / "i.csv").exists()


def test_a_video_that_is_cut_off_is_one_line(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    cut(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4 is damaged or cut off"):
        build_index(spec_of(tmp_path, {"layout": "video"}))


@pytest.mark.parametrize(
    ("members", "said", "message"),
    [
        ({"../x.png": 0}, {}, "the name '../x.png' .* is no path within the dataset"),
        ({"/x.png": 0}, {}, "the name '/x.png' .* is no path within the dataset"),
        ({"a.txt": 0}, {}, "no images in the containers of"),
        ({"a.png": 0, "b.png": 0, "a.cls": 0}, {}, "b.png has no label, and others have one"),
        ({"a.png": 0}, {"labels": "cls"}, "neither a member ending in cls nor a JSON"),
        ({"a.png": 0}, {"labels": "folder"}, "a.png is in no folder"),
    ],
)
def test_what_shards_cannot_be(
    tmp_path: Path, members: Images, said: dict[str, str], message: str
) -> None:
    data = encode(noise(0))
    tar_of(tmp_path / "a.tar", {n: b"1" if n.endswith("cls") else data for n in members})
    with pytest.raises((DataError, ConfigError), match=message):
        build_index(spec_of(tmp_path, {"layout": "webdataset"} | said))


def test_two_images_of_one_name(tmp_path: Path) -> None:
    for shard in ("a", "b"):
        tar_of(tmp_path / f"{shard}.tar", {"0.png": encode(noise(0))})
    with pytest.raises(DataError, match=r"two images are called 0\.png \(a\.tar#0\.png and b"):
        build_index(spec_of(tmp_path, {"layout": "webdataset"}))
    index = build_index(spec_of(tmp_path, {"layout": "webdataset", "ids": "place"}))
    assert index.image_id == ["a.tar#0.png", "b.tar#0.png"]


@pytest.mark.parametrize(
    ("columns", "said", "message"),
    [
        ({"x": [b"a"]}, {"images": "y"}, "has no 'y'; it has x"),
        ({"x": [1]}, {}, "has no columns or arrays of images; name one of what it has: x"),
        ({"x": [b"a"], "y": [b"b"]}, {}, "has 2 columns or arrays of images; name one"),
        ({"x": [b"a"]}, {"labels": "z"}, "labels: a.parquet has no 'z'"),
        ({"x": [b"a"], "label": [-3]}, {}, "the label -3 is none of the numbers from 0"),
        ({"x": [{"bytes": None, "path": "a.png"}]}, {}, "has no bytes, only a path"),
    ],
)
def test_what_tables_cannot_be(
    tmp_path: Path, columns: dict[str, Any], said: dict[str, str], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises((DataError, ConfigError), match=message):
        build_index(spec_of(tmp_path, {"layout": "parquet"} | said))


@pytest.mark.parametrize(
    ("array", "said", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), {"images": "x"}, "x is float32 of shape"),
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            {},
            "no 1 or 3 channels on its last axis; set axes: CHW",
        ),
        (np.zeros((2, 8, 8, 3), np.uint8), {"labels": "x"}, "x has not one value for each of x"),
    ],
)
def test_what_arrays_cannot_be(
    tmp_path: Path, array: np.ndarray, said: dict[str, str], message: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = array
    with pytest.raises(ConfigError, match=message):
        build_index(spec_of(tmp_path, {"layout": "hdf5"} | said))


def test_a_library_that_is_missing_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for layout in ("parquet", "hdf5", "video"):
        with pytest.raises(DataError, match=rf"pip install 'vitfeat\[{layout}\]'"):
            build_index(spec_of(tmp_path, {"layout": layout}))


def test_a_folder_without_containers(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(DataError, match=r"no file ending in \.tar, \.zip .*a\.tar\.gz is compress"):
        build_index(spec_of(tmp_path, {"layout": "webdataset"}))
    with pytest.raises(DataError, match="x does not exist"):
        build_index(spec_of(tmp_path / "x", {"layout": "webdataset"}))


@pytest.mark.parametrize("key", ["images", "labels", "ids", "axes", "rate"])
def test_settings_of_containers_are_refused_elsewhere(tmp_path: Path, key: str) -> None:
    value: Any = {"axes": "CHW", "rate": 2.0}.get(key, "x")
    others = [n for n, layout in LAYOUTS.items() if key not in layout.settings and n != "list"]
    assert len(others) >= 10
    for layout in others:
        split = "train" if LAYOUTS[layout].split == "always" else None
        with pytest.raises(ConfigError, match=rf"{key}: the layout {layout} does not know it"):
            spec_of(tmp_path, {"layout": layout, "split": split, key: value})


def as_tar_file(images: Images, root: Path) -> dict[str, Any]:
    tar_of(root, images)
    return {}


def as_array(images: Images, root: Path) -> dict[str, Any]:
    with h5py.File(root, "w") as file:
        file["images"] = np.zeros((24, 3, 16, 16), np.uint8)
        file["names"] = [*images]
        file["classes"] = [name.partition("/")[0] for name in images]
    return {}


def as_videos(images: Images, root: Path) -> dict[str, Any]:
    write_video(root / "walk/a.mp4")
    write_video(root / "run/b.mkv", codec="mpeg4")
    return {}


DOCUMENTED: dict[str, tuple[Write, int, str]] = {
    "shards": (as_tars, 24, "cat/00.png"),
    "archive": (as_tar_file, 24, "cat/00.png"),
    "hub": (as_parquet, 24, "cat/00.png"),
    "saved": (as_arrow, 24, "data-00000-of-00001.arrow#row=0"),
    "stimuli": (as_array, 24, "cat/00.png"),
    "clips": (as_videos, 10, "run/b.mkv#t=0.000"),
}


def test_the_config_lines_of_the_page_about_data(
    images: Images, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```yaml\n(datasets:.*?)```", (root / "docs/data.md").read_text(), re.S)
    datasets = {n: d for block in blocks for n, d in yaml.safe_load(block)["datasets"].items()}
    config = parse_config({"models": ["demo-dino"], "datasets": datasets})
    assert set(config.datasets) == set(DOCUMENTED)
    for name, (write, n, first) in DOCUMENTED.items():
        spec = config.datasets[name]
        spec.root.parent.mkdir(exist_ok=True)
        write(images, spec.root)
        # Which jobs there are does not change once the index is there.
        assert dataset_size(config, name) == Size(n)
        index = build_index(spec)
        assert (len(index), index.image_id[0]) == (n, first)
        assert index.n_classes == (2 if name == "clips" else 3)
    # Before there is an index, planning looks for containers and opens none.
    assert not [line for line in foresee(config) if "data/" in line]
