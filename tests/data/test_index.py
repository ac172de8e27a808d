from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.pictures import MakeTree, encode, noise
from vitfeat.data import containers, scan
from vitfeat.data.images import ImageError, read_bytes
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError, DataError


def build(root: Path, layout: str = "folder", *, workers: int = 1, **settings: Any) -> Index:
    return build_index(DatasetSpec(name="d", layout=layout, root=root, **settings), workers=workers)


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are read, in order."""
    names: list[str] = []

    def reading(path: Path, name: str) -> bytes:
        names.append(name)
        return read_bytes(path, name)

    monkeypatch.setattr(containers, "read_bytes", reading)
    return names


def same(one: Index, other: Index) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(Index)
    )


@pytest.mark.parametrize("module", ["layouts", "images", "index", "views", "spec"])
def test_no_torch(module: str) -> None:
    code = f"import sys, vitfeat.data.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns(tree: MakeTree) -> None:
    data = encode(noise(5, 31, 17))
    index = build(tree("b/2.png", contents={"a/1.png": data}))
    assert len(index) == 2
    assert (index.width[0], index.height[0], index.n_bytes[0]) == (31, 17, len(data))
    # Of the file, by another program.
    found = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True)
    assert index.sha256[0] == found.stdout.decode().split()[0]
    for name in ("label", "width", "height", "n_bytes"):
        assert getattr(index, name).dtype == np.int64
    assert (index.n_classes, index.has_labels, index.skipped) == (2, True, [])


def test_fingerprint_follows_contents_not_location(tree: MakeTree, tmp_path: Path) -> None:
    root = tree("a/1.png", "b/2.png")
    first = build(root).fingerprint
    assert len(first) == 64
    shutil.copytree(root, tmp_path / "copy")
    assert build(tmp_path / "copy").fingerprint == first
    seen = {first, build(root, "flat").fingerprint}  # other labels
    (root / "b" / "2.png").write_bytes(encode(noise(9)))
    seen.add(build(root).fingerprint)
    (root / "b" / "2.png").rename(root / "b" / "3.png")
    seen.add(build(root).fingerprint)
    assert len(seen) == 4


# --- how many -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_per_class_and_limit_count_valid_images(tree: MakeTree, workers: int) -> None:
    names = [f"{c}/{k:02}.png" for c in "abc" for k in range(40)]
    bad = {"a/00.png": b"x", "a/03.png": b"", "b/01.png": b"GIF89a"}
    root = tree(*names, contents=bad)
    index = build(root, per_class=3, on_error="skip", workers=workers)
    assert index.image_id == [
        *("a/01.png", "a/02.png", "a/04.png"),
        *("b/00.png", "b/02.png", "b/03.png"),
        *("c/00.png", "c/01.png", "c/02.png"),
    ]
    assert [name for name, _ in index.skipped] == ["a/00.png", "a/03.png", "b/01.png"]
    both = build(root, per_class=3, limit=5, on_error="skip", workers=workers)
    assert both.image_id == index.image_id[:5]
    every = build(root, on_error="skip", workers=workers)
    assert len(every) == 117
    assert every.image_id == sorted(set(names) - set(bad))


def test_no_more_is_read_than_wanted(tree: MakeTree, read_names: list[str]) -> None:
    root = tree(*(f"{c}/{k}.png" for c in "ab" for k in range(9)), contents={"a/1.png": b"x"})
    build(root, limit=3, on_error="skip")
    assert read_names == ["a/0.png", "a/1.png", "a/2.png", "a/3.png"]
    read_names.clear()
    build(root, per_class=1)
    assert read_names == ["a/0.png", "b/0.png"], "the broken a/1.png is not asked for"


def test_no_more_is_sent_to_workers_than_wanted(
    tree: MakeTree, read_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(scan._InCaller):
        """Keeps calls under way until they are waited for, as processes do."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.result = lambda timeout=None: fn(*args, **kwargs)  # type: ignore[method-assign]
            return future

    monkeypatch.setattr(scan, "_executor", lambda _workers: Later())
    root = tree(*(f"{c}/{k:02}.png" for c in "ab" for k in range(60)), contents={"a/01.png": b"x"})
    index = build(root, per_class=20, limit=30, on_error="skip", workers=2)
    assert read_names == [f"a/{k:02}.png" for k in range(21)] + [f"b/{k:02}.png" for k in range(10)]
    assert len(index) == 30


def test_per_class_needs_labels(tree: MakeTree) -> None:
    with pytest.raises(ConfigError, match=r"datasets\.d\.per_class: the images have no labels"):
        build(tree("a.png"), "flat", per_class=1)


# --- images that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_names_the_first_bad_image(tree: MakeTree, workers: int) -> None:
    root = tree("a/0.png", "b/0.png", contents={"a/1.png": b"x", "b/1.png": b""})
    with pytest.raises(DataError, match=r"dataset d: a/1\.png: not an image.*on_error: skip"):
        build(root, workers=workers)


def test_skip_decodes_and_stop_reads_the_header(tree: MakeTree) -> None:
    whole = encode(noise(3, 90, 70))
    root = tree("a/0.png", contents={"a/1.png": whole[: len(whole) // 2]})
    assert len(build(root)) == 2
    skipping = build(root, on_error="skip")
    assert skipping.image_id == ["a/0.png"]
    assert "damaged or truncated" in skipping.skipped[0][1]


def test_limits_of_size_are_the_settings(tree: MakeTree) -> None:
    root = tree("a/0.png")  # 24 x 20
    with pytest.raises(DataError, match="24 x 20 pixels, a side is below min_side: 21"):
        build(root, min_side=21)
    with pytest.raises(DataError, match=r"24 x 20 pixels, more than max_megapixels: 0\.0004"):
        build(root, max_megapixels=0.0004)


def test_nothing_left(tree: MakeTree) -> None:
    root = tree(contents={"a/0.png": b"x", "a/1.png": b""})
    with pytest.raises(DataError, match=r"none of its 2 images can be used, the first is a/0\.png"):
        build(root, on_error="skip")


def test_the_log(tree: MakeTree, caplog: pytest.LogCaptureFixture) -> None:
    data = encode(noise(8))
    root = tree("a/2.png", contents={"a/0.png": b"x", "a/1.png": data, "b/0.png": data})
    spec = DatasetSpec(name="d", layout="folder", root=root, on_error="skip", per_class=2)
    build_index(spec)
    text = "\n".join(caplog.messages)
    assert "dataset d: 3 images, 2 classes" in text
    assert "1 unusable image skipped, first a/0.png: not an image" in text
    assert "1 image byte-identical to others" in text
    assert "first b/0.png of a/1.png" in text
    assert "class b has 1 image, fewer than per_class" in text


def test_a_killed_process_is_an_error(tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_look", _die)
    with pytest.raises(DataError, match=r"a process that reads images was killed.*fewer workers"):
        build(tree("a/0.png"), workers=2)


def _die(*_: object) -> list[scan.Contents | ImageError]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


# --- CSV ------------------------------------------------------------------------------------


def nasty_names() -> list[str]:
    alphabet = list("ab,\"'\n\r\t ;=#\\%é猫🐈\u2028\u200b\ufeff")
    rng = np.random.default_rng(0)
    names = {"".join(rng.choice(alphabet, rng.integers(1, 9))) for _ in range(300)}
    return sorted(names | {",", '"', "\n", "\r", "\r\n", " ", "'", '",\r\n"', "a,b", "1"})


def index_of_names(names: list[str]) -> Index:
    count = np.arange(1, len(names) + 1)
    return Index(
        image_id=names,
        label=count - 1,
        class_name=names[::-1],
        width=count + 7,
        height=count + 8,
        n_bytes=count,
        sha256=[f"{k:064x}" for k in range(len(names))],
        skipped=[(name, name[::-1]) for name in names],
    )


def test_csv_round_trip_of_nasty_names(tmp_path: Path) -> None:
    index = index_of_names(nasty_names())
    path = tmp_path / "deep" / "index.csv"
    index.write(path)
    found = Index.read(path)
    assert same(index, found)
    assert found.fingerprint == index.fingerprint
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "index.csv",
        "index.notes.txt",
        "index.skipped.csv",
    ]
    # Any reader of CSV agrees.
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["image_id"] for row in csv.DictReader(file)] == index.image_id


def test_files_of_nasty_names_are_indexed(tree: MakeTree, tmp_path: Path) -> None:
    names = [f"c/{k}{name}.png" for k, name in enumerate(nasty_names()[:60])]
    index = build(tree(*names))
    assert set(index.image_id) == set(names)
    index.write(tmp_path / "i.csv")
    assert same(Index.read(tmp_path / "i.csv"), index)


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.csv"
    old = index_of_names(["a"])
    old.write(path)
    broken = dataclasses.replace(index_of_names(["b", "c"]), sha256=["0" * 64])
    with pytest.raises(ValueError, match="zip"):
        broken.write(path)
    assert Index.read(path).image_id == ["a"]
    assert len(list(tmp_path.iterdir())) == 3
    # A finished one replaces the file, whose old contents stay whole for who has it open.
    with path.open(encoding="utf-8") as file:
        index_of_names(["b", "c"]).write(path)
        assert "a," in file.read()
    assert Index.read(path).image_id == ["b", "c"]


HEADER = "image_id,label,class_name,width,height,n_bytes,sha256,orientation,crop\r\n"
ROW = f"a.png,0,cat,8,9,100,{'0' * 64},1,\r\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file ends within a line"),
        (ROW, "line 1: expected the header"),
        (HEADER.replace("label", "class"), "line 1: expected the header"),
        (HEADER + ROW + ROW[:-10], "line 3: the file ends within a line"),
        (HEADER + ROW + "b.png,1\r\n", "line 3: 2 fields instead of 9"),
        (HEADER + "\r\n" + ROW, "line 2: 0 fields"),
        (HEADER + ROW + ROW, "line 3: a.png stands there twice"),
        (HEADER + ROW.replace(",8,", ",8.0,"), "line 2: a field"),
        (HEADER + ROW.replace(",8,", ",0,"), "line 2: a field"),
        (HEADER + ROW.replace(",8,", ",９,"), "line 2: a field"),
        (HEADER + ROW.replace(",0,cat", ",-2,cat"), "line 2: a field"),
        (HEADER + ROW.replace("100", "9" * 19), "line 2: a field"),
        (HEADER + ROW.replace("0" * 64, "0" * 63), "line 2: a field"),
        (HEADER + ROW.replace("0" * 64, "G" * 64), "line 2: a field"),
        (HEADER + ROW.replace("a.png", ""), "line 2: a field"),
        (HEADER + ROW.replace(",1,\r", ",0,\r"), "line 2: a field"),
        (HEADER + ROW.replace(",1,\r", ",9,\r"), "line 2: a field"),
        (HEADER + ROW.replace(",\r", ",1 2 3\r"), "line 2: a field"),
        (HEADER + ROW.replace(",\r", ",0 0 9 9\r"), "line 2: a field"),
        (HEADER + ROW.replace(",\r", ",nan 0 8 9\r"), "line 2: a field"),
        (HEADER + ROW.replace(",\r", ",2.1 2.1 2.3 2.3\r"), "line 2: a field"),
        (HEADER + ROW + '"b', "line 3: the file ends within a line"),
        (HEADER + ROW + '"b"x\r\n', "line 3: .* expected after"),
        (HEADER + ROW + "\udcff\r\n", "line 3: not UTF-8"),
    ],
)
def test_damaged_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "index.csv"
    index_of_names(["a.png"]).write(path)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=rf"index\.csv, {message}.*remake the index"):
        Index.read(path)


def test_csv_that_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    with pytest.raises(DataError, match=r"index\.csv cannot be read"):
        Index.read(path)
    index_of_names(["a"]).write(path)
    (tmp_path / "index.skipped.csv").unlink()
    with pytest.raises(DataError, match=r"index\.skipped\.csv cannot be read"):
        Index.read(path)
