"""What is the system's fault is not said of the files: nobody is asked to remove what is whole."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import MakeFile
from tests.faults.test_kills import CONTENT, OTHER
from tests.store.filled import copied, files
from vitfeat.cli import main
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import AnalysisError, ReadError, StoreError, VitfeatError
from vitfeat.numerics.gramfile import GramFile
from vitfeat.store.finished import finished_store
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify

HELPS = {
    errno.EMFILE: "raise the limit",
    errno.ENFILE: "end what has them open",
    errno.ENOMEM: "end what else uses it",
    errno.EACCES: "look after its permissions",
    errno.EIO: "look after the disk",
}


@contextmanager
def failing(number: int, name: str) -> Iterator[None]:
    """Have every file whose path has a name in it fail to open."""
    calls = {(builtins, "open"): builtins.open, (io, "open"): io.open, (os, "open"): os.open}

    def failing_one(call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and name in os.fspath(path):
                raise OSError(number, os.strerror(number), str(path))
            return call(path, *arguments, **options)

        return opened

    with pytest.MonkeyPatch.context() as patch:
        for (module, attribute), call in calls.items():
            patch.setattr(module, attribute, failing_one(call))
        yield


def _is_true(message: str, number: int) -> None:
    assert os.strerror(number) in message
    assert HELPS[number] in message
    assert "\n" not in message
    for word in ("damaged", "remove", "delete", "extract it", "compute it"):
        assert word not in message, message


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    CONTENT.write(tmp_path / "m.zarr")
    return tmp_path / "m.zarr"


@pytest.mark.parametrize("number", HELPS)
def test_of_a_sealed_store(sealed: Path, number: int) -> None:
    for name in ("m.zarr/zarr.json", "label/c.0", "seal/shards", "cls/zarr.json"):
        with failing(number, name), pytest.raises(ReadError) as info:
            open_store(sealed)
        _is_true(str(info.value), number)
    store = open_store(sealed)
    for name, call in {
        "cls/c.0": lambda: store["cls"][:],
        "label/c.0": lambda: store.labels,
        "attention/c.0": lambda: verify(sealed),
    }.items():
        with failing(number, name), pytest.raises(ReadError) as info:
            call()
        _is_true(str(info.value), number)


@pytest.mark.parametrize("number", HELPS)
@pytest.mark.parametrize(
    "name", ["zarr.json", "cls/c.0", "000000", ".pieces", ".claim", ".progress/files"]
)
def test_of_an_unfinished_store_which_loses_nothing(tmp_path: Path, name: str, number: int) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0, 1], seal=False)
    before = files(partial_path(path))
    with failing(number, name), pytest.raises(StoreError) as info:
        CONTENT.write(path, replacing=True)
    _is_true(str(info.value), number)
    assert before.items() <= files(partial_path(path)).items()
    assert CONTENT.write(path)[0] == [2]


@pytest.mark.parametrize("number", HELPS)
def test_a_store_that_cannot_be_read_now_is_not_replaced(sealed: Path, number: int) -> None:
    """Also where a workflow replaces what it finds."""
    for name in ("m.zarr/zarr.json", "label/c.0"):
        with failing(number, name), pytest.raises(ReadError):
            finished_store(sealed, CONTENT.request, replace=True)
    # Damage and other settings are another matter.
    assert finished_store(sealed, OTHER.request, replace=True)[0] is None


@pytest.mark.parametrize("number", HELPS)
def test_of_a_gram_file(make_file: MakeFile, number: int) -> None:
    path = make_file([np.eye(5, dtype=np.float32)]).path
    with failing(number, path.name), pytest.raises(AnalysisError) as info:
        GramFile(path)
    _is_true(str(info.value), number)


def test_with_all_descriptors_open(sealed: Path, make_file: MakeFile, tmp_path: Path) -> None:
    """Not pretended: the system says so."""
    path, store = make_file([np.eye(5, dtype=np.float32)]).path, open_store(sealed)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        messages = []
        for call in (
            lambda: GramFile(path),
            lambda: open_store(sealed),
            lambda: store["cls"][:],
            lambda: CONTENT.write(tmp_path / "new.zarr"),
        ):
            with pytest.raises(VitfeatError) as info:
                call()
            messages.append(str(info.value))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for handle in held:
            os.close(handle)
    for message in messages:
        _is_true(message, errno.EMFILE)


@pytest.mark.parametrize("name", ["cls", "label"])
def test_no_memory_is_no_damage(
    sealed: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise MemoryError

    where = {"cls": "numcodecs.blosc.decompress", "label": "zarr.Array.from_dict"}[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, none)
        assert main(["verify", str(sealed)]) == 1
    line = capsys.readouterr().err
    assert line.startswith("vitfeat: error: out of memory")
    assert verify(sealed)[1] == []


def test_a_command_names_the_file_that_cannot_be_written(
    sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "t.csv"
    command = ["run", "clustering", str(sealed), "--out", str(out), "--clusters", "2"]
    assert main(command) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"vitfeat: error: {tmp_path / 'file'}")
    assert "half written" not in line
    copied(sealed, tmp_path / "copy.zarr")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("layout", ["folder", "webdataset"])
def test_no_image_is_left_out_for_it(
    photos: Path, tmp_path: Path, number: int, layout: str
) -> None:
    """Also where images that cannot be decoded are left out."""
    root = photos
    if layout == "webdataset":
        root = tmp_path / "shards"
        root.mkdir()
        with tarfile.open(root / "photos.tar", "w") as archive:
            archive.add(photos, "photos")
    spec = DatasetSpec(name="d", layout=layout, root=root, on_error="skip")
    whole = build_index(spec)
    assert (len(whole), len(whole.skipped)) == (6, 0)
    image = "photos.tar" if layout == "webdataset" else Path(whole.image_id[3]).name
    with failing(number, image), pytest.raises(VitfeatError) as info:
        build_index(spec)
    _is_true(str(info.value), number)
