"""What stands beside a store: files of the user's, links, other jobs' stores, read-only disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.faults.disks import mounted_tmpfs
from tests.faults.test_kills import CONTENT, KEPT, OTHER
from tests.store.filled import files
from vitfeat.errors import StoreError
from vitfeat.store import paths
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path, set_aside
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer, remove_leftovers


@pytest.mark.parametrize("end", [".partial", ".replaced", ".creating", ".discarded"])
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "replacing"])
def test_files_of_the_users_are_never_deleted(tmp_path: Path, end: str, is_there: bool) -> None:
    path = tmp_path / "m.zarr"
    if is_there:
        OTHER.write(path)
    theirs = path.with_name(path.name + end)
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    if end == ".partial":
        with pytest.raises(StoreError, match=r"partial: is in the way, and no unfinished store"):
            CONTENT.write(path, replacing=True)
    else:
        CONTENT.write(path, replacing=True)
        assert open_store(path).attributes["request"] == CONTENT.request
    assert files(theirs) == {"thesis.txt": b"years of work"}


def test_a_store_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0, 1, 2], seal=False)
    OTHER.write(tmp_path / "other.zarr")
    given = (CONTENT.layout, CONTENT.geometry, CONTENT.rows, CONTENT.request, "m")
    with open_writer(path, *given) as writer:
        assert writer is not None
        (tmp_path / "other.zarr").rename(path)
        with pytest.raises(StoreError, match="something else has come to stand there"):
            writer.seal()
    assert open_store(path).attributes["request"] == OTHER.request
    path.rename(tmp_path / "elsewhere.zarr")
    assert CONTENT.write(path)[0] == []
    assert verify(path)[1] == []


@pytest.mark.parametrize("is_there", [False, True], ids=["leads nowhere", "leads to a store"])
def test_a_store_that_is_a_link_stays_one(tmp_path: Path, is_there: bool) -> None:
    large = tmp_path / "large" / "store.zarr"
    link = tmp_path / "results" / "m.zarr"
    link.parent.mkdir()
    link.symlink_to(large)
    if is_there:
        OTHER.write(large)
    CONTENT.write(link, [0], seal=False)
    assert partial_path(large).is_dir()
    missing, manifest = CONTENT.write(link, replacing=True)
    assert missing == [1, 2]
    assert manifest is not None
    assert manifest["store"] == "m.zarr"
    assert link.is_symlink()
    assert verify(link)[1] == []
    assert [*link.parent.iterdir()] == [link]
    assert {p.name for p in large.parent.iterdir()} == {".store.zarr.lock", "store.zarr"}
    # Arrays that go after use stand beside the link, where the workflow looks for them.
    set_aside(link, KEPT)
    assert verify(link)[1] == []
    assert (link.parent / "m.transient" / "spatial").is_dir()


def test_arrays_that_cannot_be_moved_beside_a_link_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    CONTENT.write(tmp_path / "m.zarr")
    monkeypatch.setattr(paths.Path, "rename", across)
    with pytest.raises(StoreError, match="must stand on the same disk as the link"):
        set_aside(tmp_path / "m.zarr", KEPT)


def test_a_disk_to_read_only(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "4m") as (disk, remount):
        CONTENT.write(disk / "m.zarr")
        (disk / "m.zarr" / ".progress").mkdir()
        CONTENT.write(disk / "n.zarr", [0], seal=False)
        remount("ro")
        assert verify(disk / "m.zarr")[1] == []
        # What is left of a kill stays there, and harms nobody.
        remove_leftovers(disk / "m.zarr")
        for name in ("m.zarr", "n.zarr", "new.zarr"):
            with pytest.raises(StoreError, match=r"cannot be written .*Read-only.*; choose"):
                CONTENT.write(disk / name, replacing=True)
        remount("rw")
        assert CONTENT.write(disk / "n.zarr")[0] == [1, 2]


def test_who_may_not_write_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot be written .*look after its permissions"):
        CONTENT.write(tmp_path / "m.zarr")
