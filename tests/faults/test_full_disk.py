"""A disk that is full at every stage of every kind of file: one line, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.faults.counts import times
from tests.faults.disks import mounted_tmpfs
from tests.store.filled import Content, files
from tests.store.test_ragged_store import RAGGED
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import StoreError
from vitfeat.figures import style
from vitfeat.files import write_json
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramMeta, write_gram_file
from vitfeat.tables import write_table

GATHERED = Content(
    taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)}, dtype="float32"
)
PAGE = 4096
STEP = times(12, 1)


@pytest.mark.parametrize("content", [GATHERED, RAGGED], ids=["square", "dense"])
def test_of_a_store(tmp_path: Path, content: Content) -> None:
    """With one page more each time, from none on to enough."""
    content.write(tmp_path / "whole.zarr")
    whole = files(tmp_path / "whole.zarr")
    stages = set()
    for pages in range(1, 1000, STEP):
        with mounted_tmpfs(tmp_path / str(pages), f"{pages * PAGE}") as (disk, remount):
            path, done = disk / "m.zarr", []
            try:
                content.write(path)
            except StoreError as error:
                message = str(error)
                assert "No space left" in message or "no space left" in message, message
                assert "make room" in message
                stages.add(message.split(": ")[1])
                assert not path.exists()
                done = list(disk.glob("m.zarr.partial/.progress/00000?"))
            else:
                break
            remount(f"size={4 * 2**20}")
            # As much as there is a marker for is kept.
            assert len(content.write(path)[0]) == 3 - len(done)
            assert files(path) == whole
            assert {p.name for p in disk.iterdir()} == {"m.zarr", ".m.zarr.lock"}
    assert files(tmp_path / "whole.zarr") == whole
    assert "could not be created" in stages
    assert any(stage.startswith("block ") for stage in stages)


def _gram(path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    made = gram(lambda a, b: features[a:b], 40)
    write_gram_file(path, range(3), [made] * 3, GramMeta("m", "d", "cls", "i", "f"))


def _rows() -> Iterator[ScoreRow]:
    fields = dict.fromkeys(ScoreRow._fields, "x" * 40)
    return iter([ScoreRow(**fields)] * 200)  # type: ignore[arg-type]


def _figure(path: Path) -> None:
    figure = Figure()
    figure.subplots().plot(np.random.default_rng(0).standard_normal(500))
    style.save(figure, path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "m.safetensors": _gram,
    "table.csv": lambda path: write_table(path, ScoreRow, _rows()),
    "manifest.json": lambda path: write_json(path, {"arrays": ["x" * 60] * 400}),
    "figure.png": _figure,
}


@pytest.mark.parametrize("name", WRITERS)
def test_of_a_file(tmp_path: Path, name: str) -> None:
    """The file that was there stays, the error has its name, and nothing else is left."""
    old = b"what was there"
    for pages in range(2, 1000, STEP):
        with mounted_tmpfs(tmp_path / str(pages), f"{pages * PAGE}") as (disk, _):
            (disk / name).write_bytes(old)
            named = None
            try:
                WRITERS[name](disk / name)
            except OSError as error:
                named = Path(error.filename)
            if named is None:
                assert pages > 2
                return
            assert (named.parent, named.stem) == (disk, Path(name).stem)
            # A figure is two files.
            assert files(disk)[name] == old or named.suffix == ".pdf"
            assert {Path(n).stem for n in files(disk)} == {Path(name).stem}
    pytest.fail("never enough")
