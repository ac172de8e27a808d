"""Whether the files of an index are still the same: whatever their sizes and dates, by contents."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitfeat.cli import main
from vitfeat.data import unchanged
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.unchanged import (
    Hashes,
    Snapshot,
    annotations_token,
    contents,
    snapshot_path,
    token,
)
from vitfeat.demo.datasets import write as write_demo

LONG_AGO = 1_000_000_000


@pytest.fixture
def settled(photos: Path) -> Path:
    """The photographs, none of them just written."""
    age(photos)
    return photos


def age(folder: Path, seconds: int = LONG_AGO) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (seconds, seconds))


class Indexed:
    """A dataset and its index."""

    def __init__(self, root: Path, layout: str = "folder", **settings: Any) -> None:
        self.spec = DatasetSpec.from_config(
            "photos", {"layout": layout, "root": str(root), **settings}
        )
        self.path = root.parent / "index.csv"
        self.make()

    def make(self) -> None:
        flags = {"layout": self.spec.layout, "root": self.spec.root, "split": self.spec.split}
        flags |= {"list": self.spec.list, "limit": self.spec.limit, "on-error": self.spec.on_error}
        words = [str(w) for k, v in flags.items() if v is not None for w in (f"--{k}", v)]
        assert main(["index", "photos", *words, "--out", str(self.path)]) == 0

    def token(self) -> str:
        return token(self.spec, self.path)


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was written this instant for settled: tests write, and do not wait."""
    monkeypatch.setattr(unchanged, "TICK_NS", -(10**12))


def other(path: Path, like: Path | None = None) -> None:
    """Write other pixels in the place of an image, in as many bytes."""
    pixels = np.random.default_rng(9).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    n_bytes = path.stat().st_size
    Image.fromarray(pixels).save(path)
    short = n_bytes - path.stat().st_size
    with path.open("ab") as file:
        file.truncate(n_bytes) if short < 0 else file.write(bytes(short))


def in_place(path: Path) -> None:
    other(path)


def of_an_older_date(path: Path) -> None:
    other(path)
    os.utime(path, (LONG_AGO - 10**8,) * 2)


def of_the_same_date(path: Path) -> None:
    other(path)
    os.utime(path, (LONG_AGO,) * 2)


def moved_over(path: Path) -> None:
    new = path.with_name("new.png")
    shutil.copy(path, new)
    other(new)
    os.utime(new, (LONG_AGO,) * 2)
    new.replace(path)
    os.utime(path.parent, (LONG_AGO,) * 2)


def linked_elsewhere(path: Path) -> None:
    target = path.parent.parent.parent / "elsewhere.png"
    shutil.copy(path, target)
    other(target)
    os.utime(target, (LONG_AGO,) * 2)
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    "replaced", [in_place, of_an_older_date, of_the_same_date, moved_over, linked_elsewhere]
)
@pytest.mark.usefixtures("settle")
def test_a_replaced_image_is_found_whatever_its_size_and_date(
    settled: Path, replaced: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    replaced(settled / "dog/e.png")
    after = indexed.token()
    assert after not in ("", before)
    assert caplog.messages == [
        "dataset photos: 1 image is not what was indexed, first dog/e.png: the index is made anew"
    ]
    # Asked again it is the same text, and so it is once the index was made.
    assert indexed.token() == after
    indexed.make()
    caplog.clear()
    assert indexed.token() == after
    assert caplog.messages == []


@pytest.mark.usefixtures("settle")
def test_touched_files_are_the_same(settled: Path, caplog: pytest.LogCaptureFixture) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    age(settled, LONG_AGO + 5)
    stale = snapshot_path(indexed.path).read_bytes()
    assert indexed.token() == before
    # They are read once.
    assert snapshot_path(indexed.path).read_bytes() != stale
    fresh = snapshot_path(indexed.path).stat().st_mtime_ns
    caplog.clear()
    assert indexed.token() == before
    assert snapshot_path(indexed.path).stat().st_mtime_ns == fresh
    assert caplog.messages == []


def test_what_may_have_been_written_while_it_was_read_is_read_again(photos: Path) -> None:
    indexed = Indexed(photos)
    before, status = indexed.token(), (photos / "cat/a.png").stat()
    other(photos / "cat/a.png")
    os.utime(photos / "cat/a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert indexed.token() != before
    # Within one tick of a clock not even the times would differ: nothing of it is trusted.
    assert (Snapshot.read(snapshot_path(indexed.path)).image_stats == -2).all()
    contents(photos / "cat/a.png", kept := photos.parent / "kept.json")
    found = Hashes.read(kept)
    assert found is not None
    assert found.files == {}


@pytest.mark.usefixtures("settle")
def test_new_and_lost_images(settled: Path, caplog: pytest.LogCaptureFixture) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    shutil.copy(settled / "dog/d.png", settled / "dog/new.png")
    added = indexed.token()
    assert "other images than before" in caplog.messages[0]
    (settled / "dog/new.png").rename(settled.parent / "kept.png")
    assert indexed.token() == before
    (settled / "dog/d.png").unlink()
    assert indexed.token() not in (before, added)
    assert "first dog/d.png" in caplog.messages[-1]


@pytest.mark.usefixtures("settle")
def test_files_that_are_no_images_of_the_dataset_change_nothing(settled: Path) -> None:
    indexed = Indexed(settled, limit=4)
    before = indexed.token()
    (settled / "cat/notes.txt").write_text("seen")
    (settled / ".DS_Store").write_text("")
    # Behind the fourth.
    shutil.copy(settled / "dog/d.png", settled / "dog/z.png")
    other(settled / "dog/f.png")
    assert indexed.token() == before
    shutil.copy(settled / "dog/d.png", settled / "cat/0.png")
    assert indexed.token() != before


@pytest.mark.usefixtures("settle")
def test_a_folder_deep_behind_a_link_is_looked_at(settled: Path) -> None:
    away = settled.parent / "away"
    (away / "deep").mkdir(parents=True)
    shutil.copy(settled / "dog/d.png", away / "deep/h.png")
    (settled / "dog/link").symlink_to(away)
    (away / "round").symlink_to(settled)
    indexed = Indexed(settled, "flat")
    before = indexed.token()
    shutil.copy(settled / "dog/d.png", away / "deep/i.png")
    assert indexed.token() != before


@pytest.mark.usefixtures("settle")
def test_a_broken_image_that_was_mended_is_found(settled: Path) -> None:
    whole = (settled / "cat/b.png").read_bytes()
    (settled / "cat/b.png").write_bytes(bytes(len(whole)))
    indexed = Indexed(settled, on_error="skip")
    before = indexed.token()
    (settled / "cat/b.png").write_bytes(whole)
    assert indexed.token() != before


@pytest.mark.usefixtures("settle")
def test_a_list_is_read_anew_when_it_names_other_images(settled: Path) -> None:
    names = settled.parent / "names.txt"
    names.write_text("cat/a.png\ndog/d.png\n")
    indexed = Indexed(settled, "list", list=str(names))
    before = indexed.token()
    # Others of the folder do not matter.
    other(settled / "dog/f.png")
    names.write_text("# in another order\ndog/d.png\ncat/a.png\n")
    assert indexed.token() == before
    names.write_text("cat/b.png\ndog/d.png\n")
    os.utime(names, (LONG_AGO,) * 2)
    assert indexed.token() != before


def test_a_folder_that_is_away_leaves_what_was_made(settled: Path) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    settled.rename(settled.parent / "unplugged")
    assert indexed.token() == before


@pytest.mark.usefixtures("settle")
def test_more_than_can_be_read_while_planning_is_left_to_the_job(
    settled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    monkeypatch.setattr(unchanged, "_MOST_BYTES", 10_000)
    age(settled, LONG_AGO + 5)
    after = indexed.token()
    assert after != before
    assert "6 images of 34" in caplog.messages[0]
    indexed.make()
    assert indexed.token() == after


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_snapshot_makes_the_index_anew(settled: Path, damage: bytes) -> None:
    indexed = Indexed(settled)
    before = indexed.token()
    snapshot_path(indexed.path).write_bytes(damage)
    after = indexed.token()
    assert after != before
    indexed.make()
    assert indexed.token() == after


@pytest.mark.usefixtures("settle")
@pytest.mark.parametrize(
    ("layout", "split", "file"),
    [
        ("davis", "val", "Annotations/480p/crossing/00003.png"),
        ("spair", "test", "PairAnnotation/test/*.json"),
        ("coco", "val2017", "annotations/instances_val2017.json"),
        ("partimagenet", "val", "val.json"),
        ("revisited", None, "gnd_*.pkl"),
    ],
)
def test_other_annotations_are_found_and_touched_ones_are_the_same(
    tmp_path: Path, layout: str, split: str | None, file: str
) -> None:
    root = tmp_path / "data"
    write_demo(layout, root)
    age(root)
    indexed = Indexed(root, layout, split=split)
    table = tmp_path / "table.csv"
    words = ["--layout", layout, "--root", str(root), "--index", str(indexed.path)]
    words += ["--split", split] if split else []
    command = ["annotations", "photos", *words, "--out", str(table)]
    assert annotations_token(indexed.spec, table) == ""
    assert main(command) == 0
    before = indexed.token(), annotations_token(indexed.spec, table)
    age(root, LONG_AGO + 5)
    assert (indexed.token(), annotations_token(indexed.spec, table)) == before
    path = sorted(root.glob(file))[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, (LONG_AGO - 5,) * 2)
    after = annotations_token(indexed.spec, table)
    assert after != before[1]
    path.write_bytes(data)
    assert annotations_token(indexed.spec, table) == before[1]


@pytest.mark.usefixtures("settle")
def test_a_checkpoint_is_known_by_its_contents(tmp_path: Path) -> None:
    weights, kept = tmp_path / "w.pth", tmp_path / "kept.json"
    absent = contents(weights, kept)
    weights.write_bytes(b"one")
    os.utime(weights, (LONG_AGO,) * 2)
    before = contents(weights, kept)
    assert before != absent
    os.utime(weights, (LONG_AGO + 5,) * 2)
    assert contents(weights, kept) == before
    weights.write_bytes(b"two")
    os.utime(weights, (LONG_AGO + 5,) * 2)
    assert contents(weights, kept) not in (before, absent)
    kept.unlink()
    kept.mkdir()
    weights.write_bytes(b"one")
    assert contents(weights, kept) == before
