"""Interrupted, resumed, replaced, refused: what stands on disk at each moment."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.store.filled import GEOMETRY, N_IMAGES, Content, files, shard_of
from vitfeat.errors import StoreError
from vitfeat.files import write_files
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer, remove_leftovers

CONTENT = Content()
OTHER = Content(seed=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "m.zarr"


def _open(path: Path, content: Content = CONTENT, **options: Any) -> Any:
    return open_writer(
        path, content.layout, content.geometry, content.rows, content.request, "m", **options
    )


def _same_files(a: Path, b: Path) -> None:
    left, right = files(a), files(b)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


# --- Resuming ---


def test_no_warning_is_shown_to_the_user(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CONTENT.write(path)


@pytest.mark.parametrize("first", [[], [0], [1], [0, 2], [2, 1, 0]])
def test_a_resumed_store_has_the_bytes_of_an_uninterrupted_one(
    written: Path, path: Path, first: list[int]
) -> None:
    missing, _ = CONTENT.write(path, first, seal=False)
    assert missing == [0, 1, 2]
    assert not path.exists()
    missing, manifest = CONTENT.write(path)
    assert missing == sorted({0, 1, 2} - set(first))
    assert manifest is not None
    assert manifest["forward_images"] == N_IMAGES
    assert not partial_path(path).exists()
    _same_files(path, written)


def test_a_half_written_block_is_written_anew(written: Path, path: Path) -> None:
    """As a kill leaves it: shards whole, cut or of nonsense, and no marker behind them."""
    CONTENT.write(path, [0], seal=False)
    partial = partial_path(path)
    for block, shape in ((1, 5000), (2, 3)):
        for name in ("cls", "spatial"):
            shard_of(partial, name, block).write_bytes(b"\x07" * shape)
    missing, _ = CONTENT.write(path)
    assert missing == [1, 2]
    _same_files(path, written)


def test_an_interrupted_creation_starts_again(written: Path, path: Path) -> None:
    CONTENT.write(path, [], seal=False)
    shutil.rmtree(partial_path(path) / ".progress")
    (partial_path(path) / "cls" / "zarr.json").unlink()
    CONTENT.write(path)
    _same_files(path, written)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"attributes": 3}'])
def test_a_partial_store_with_damaged_metadata_starts_again(
    written: Path, path: Path, text: str
) -> None:
    CONTENT.write(path, [0, 1], seal=False)
    (partial_path(path) / "zarr.json").write_text(text)
    assert CONTENT.write(path)[0] == [0, 1, 2]
    _same_files(path, written)


def test_a_partial_store_of_another_format_starts_again(written: Path, path: Path) -> None:
    CONTENT.write(path, [0, 1], seal=False)
    metadata = partial_path(path) / "zarr.json"
    text = metadata.read_text()
    assert '"format_version": 4' in text
    metadata.write_text(text.replace('"format_version": 4', '"format_version": 3'))
    assert CONTENT.write(path)[0] == [0, 1, 2]
    _same_files(path, written)


@pytest.mark.parametrize("moment", ["the seal", "rename old", "rename new", "remove markers"])
def test_a_kill_while_sealing_loses_nothing(
    written: Path, path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kill(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Kill

    OTHER.write(path)
    with monkeypatch.context() as patch:
        if moment == "the seal":
            patch.setattr("vitfeat.store.seal.write_files", kill)
        elif moment == "remove markers":
            remove = shutil.rmtree
            patch.setattr(
                "vitfeat.store.writer.shutil.rmtree",
                lambda p, **k: kill() if Path(p).name == ".progress" else remove(p, **k),
            )
        else:
            rename = Path.rename
            victim = path if moment == "rename old" else partial_path(path)
            patch.setattr(
                Path, "rename", lambda self, to: kill() if self == victim else rename(self, to)
            )
        with pytest.raises(Kill):
            CONTENT.write(path, replacing=True)
    if moment in ("the seal", "rename old"):
        assert open_store(path).attributes["request"] == OTHER.request  # the old one, whole
    if moment == "remove markers":
        remove_leftovers(path)
    else:
        assert CONTENT.write(path, replacing=True)[0] == []
    _same_files(path, written)
    store, damages = verify(path)
    assert damages == []
    assert np.array_equal(store["cls"][:], CONTENT.arrays()["cls"])


def test_a_store_is_not_sealed_before_it_is_whole(path: Path) -> None:
    with pytest.raises(StoreError, match="1 of 3 blocks are not written"):
        CONTENT.write(path, [0, 2])
    assert not path.exists()
    assert CONTENT.write(path)[0] == [1]


# --- Other requests ---


def test_a_partial_store_from_other_settings(written: Path, path: Path) -> None:
    OTHER.write(path, [0, 1], seal=False)
    before = files(partial_path(path))
    with pytest.raises(StoreError) as info:
        CONTENT.write(path)
    message = str(info.value)
    assert "an unfinished store from other settings is in the way (seed: 1 in" in message
    assert "--replace" in message
    assert files(partial_path(path)) == before
    # It is discarded where that is asked for, none of its blocks taken over.
    assert CONTENT.write(path, replacing=True)[0] == [0, 1, 2]
    _same_files(path, written)


def test_a_partial_store_with_more_taps_is_not_gone_on_with(path: Path) -> None:
    """Its blocks may be of another size, and its other arrays would stay unfinished."""
    fewer = Content(taps=("cls",), block=16)
    CONTENT.write(path, [0], seal=False)
    with pytest.raises(StoreError, match=r"\(taps: .* in the store, \['cls'\] asked\)"):
        fewer.write(path)
    assert fewer.write(path, replacing=True)[0] == [0, 1]
    store, damages = verify(path)
    assert (store.array_names, damages) == (("cls",), [])
    assert np.array_equal(store["cls"][:], fewer.arrays()["cls"])


def test_the_old_store_stands_until_the_new_one_is_sealed(written: Path, path: Path) -> None:
    OTHER.write(path)
    old = files(path)

    class StoppedError(Exception):
        pass

    def interrupted() -> None:
        with _open(path, replace=True) as writer:
            part = {n: v[:8] for n, v in CONTENT.arrays().items()}
            writer.write_block(0, part, forward_images=8)
            raise StoppedError

    with pytest.raises(StoppedError):
        interrupted()
    assert files(path) == old
    store, damages = verify(path)
    assert (store.attributes["request"], damages) == (OTHER.request, [])
    assert CONTENT.write(path, replacing=True)[0] == [1, 2]
    _same_files(path, written)
    assert sorted(p.name for p in path.parent.iterdir()) == [".m.zarr.lock", "m.zarr"]


# --- One writer at a time ---

_HOLD = """
import sys
from pathlib import Path
from tests.store.filled import Content
from vitfeat.store.writer import open_writer

c = Content()
with open_writer(Path(sys.argv[1]), c.layout, c.geometry, c.rows, c.request, "m"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told(path: Path, root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        before = files(partial_path(path))
        with pytest.raises(StoreError, match="another process is writing this store") as info:
            CONTENT.write(path, replacing=True)
        assert "\n" not in str(info.value)
        assert files(partial_path(path)) == before
        # A killed writer's lock goes with it.
        other.kill()
    assert CONTENT.write(path)[0] == [0, 1, 2]


# --- A full disk ---


def _fill(patch: pytest.MonkeyPatch, where: str, error: OSError, good: int = 0) -> None:
    """Let files be written so many times, then no more."""
    left = [good]

    def write(*arguments: Any) -> None:
        if not left[0]:
            raise error
        left[0] -= 1
        write_files(*arguments)

    patch.setattr(f"vitfeat.store.{where}.write_files", write)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left on the disk"),
        (OSError(errno.EIO, "Input/output error"), ".*Input/output error"),
    ],
    ids=["full", "quota", "broken"],
)
@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize("where", ["writer", "progress"])
def test_a_full_disk_keeps_the_earlier_blocks(
    path: Path, tmp_path: Path, where: str, good: int, error: OSError, words: str
) -> None:
    """A shard, pieces or a marker that cannot be written."""
    content = replace(CONTENT, span=16)
    whole = tmp_path / "whole.zarr"
    content.write(whole)
    content.write(path, [0], seal=False)
    with pytest.MonkeyPatch.context() as patch:
        _fill(patch, where, error, good)
        with pytest.raises(StoreError, match=f"could not be written: {words}") as info:
            content.write(path)
    assert "\n" not in str(info.value)
    assert "run the extraction again to go on" in str(info.value)
    assert not path.exists()
    assert 0 not in content.write(path)[0]
    _same_files(path, whole)


def test_a_creation_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = zarr.Group.create_array

    def full(self: zarr.Group, name: str, **options: Any) -> Any:
        if name == "spatial":
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(self, name, **options)

    monkeypatch.setattr(zarr.Group, "create_array", full)
    with pytest.raises(StoreError, match=r"could not be created: .*No space left"):
        CONTENT.write(path)
    assert not path.exists()
    assert not partial_path(path).exists()


def test_a_block_without_an_array_is_not_marked(path: Path) -> None:
    part = {n: v[:8] for n, v in CONTENT.arrays().items()}
    del part["cls"]
    with _open(path) as writer:
        with pytest.raises(KeyError):
            writer.write_block(0, part, forward_images=8)
        assert writer.missing_blocks() == [0, 1, 2]


def test_a_store_without_summaries_has_no_group_of_them(path: Path) -> None:
    content = replace(CONTENT, taps=("cls",), geometry=replace(GEOMETRY, n_registers=0))
    content.write(path)
    assert sorted(p.name for p in path.iterdir()) == [
        "cls",
        "image_id",
        "label",
        "layer",
        "seal",
        "zarr.json",
    ]
    assert set(open_store(path).to_xarray().data_vars) == {"cls"}
