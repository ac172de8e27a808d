"""One store by several jobs: each its own blocks, any of them again, and one that seals."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.extraction.pictures_folder import ALL, N_IMAGES, Watch
from tests.store.filled import Content, files
from tests.store.test_layout import S16
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.errors import StoreError
from vitfeat.extraction import run
from vitfeat.extraction.job import Job
from vitfeat.extraction.run import extract
from vitfeat.models.backbone import Backbone
from vitfeat.store.layout import plan_layout
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify
from vitfeat.store.writer import StoreWriter, open_writer


class _Stop(Exception):  # noqa: N818  (what a test raises is no error of anybody's)
    pass


@pytest.fixture
def part(backbone: Backbone, index: Index, folder: Path) -> Any:
    def job(out: Path, number: int | None = None, of: int = 3, **options: Any) -> Any:
        settings = ALL.but(part=(number, of) if number else None)
        return extract(backbone, index, folder, out, settings, **options)

    return job


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_a_store_by_several_jobs_has_the_bytes_of_one_by_one(
    part: Any, whole: Path, images: Tensor, backbone: Backbone, tmp_path: Path, order: Any
) -> None:
    out = tmp_path / "m.zarr"
    with Watch(backbone, images) as watch:
        for number in order:
            assert part(out, number) is None
            assert not out.exists()
        manifest = part(out)
    assert sorted(watch.rows) == list(range(N_IMAGES))
    assert manifest["forward_images"] == N_IMAGES
    assert files(out) == files(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.zarr.lock", "m.zarr"]


@pytest.mark.parametrize("of", [2, 5])
def test_more_or_fewer_jobs_than_blocks(part: Any, whole: Path, tmp_path: Path, of: int) -> None:
    out = tmp_path / "m.zarr"
    for number in range(1, of + 1):
        part(out, number, of)
    part(out)
    assert files(out) == files(whole)


def test_a_job_that_died_is_run_again_alone(
    part: Any, whole: Path, images: Tensor, backbone: Backbone, tmp_path: Path
) -> None:
    out, done = tmp_path / "m.zarr", [0]

    def stop(count: int) -> None:
        done[0] += count
        if done[0] >= 5:
            raise _Stop

    with pytest.raises(_Stop):
        part(out, 2, 2, on_images=stop)
    part(out, 1, 2)
    with Watch(backbone, images) as watch:
        part(out, 1, 2)
        assert watch.rows == []
        part(out, 2, 2)
    # One block or two, of three.
    assert watch.rows in (list(range(8, 22)), list(range(16, 22)))
    part(out)
    assert files(out) == files(whole)


def test_what_the_jobs_left_is_done_by_the_last(part: Any, whole: Path, tmp_path: Path) -> None:
    part(tmp_path / "m.zarr", 2)
    part(tmp_path / "m.zarr")
    assert files(tmp_path / "m.zarr") == files(whole)


def test_a_job_of_a_finished_store_has_nothing_to_do(
    part: Any, whole: Path, images: Tensor, backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    before = files(whole)
    with Watch(backbone, images) as watch:
        part(whole, 1)
    assert watch.rows == []
    assert "nothing to do" in caplog.messages[-1]
    assert files(whole) == before


@pytest.mark.parametrize("number", [1, None])
def test_a_job_that_looked_just_before_the_sealing_begins_nothing_anew(
    part: Any,
    whole: Path,
    images: Tensor,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, probe = tmp_path / "m.zarr", run.probe
    for other in (1, 2, 3):
        part(out, other)

    def late(job: Job) -> None:
        """Let another job seal the store behind the look of this one."""
        probe(job)
        monkeypatch.setattr(run, "probe", probe)
        part(out)

    monkeypatch.setattr(run, "probe", late)
    with Watch(backbone, images) as watch:
        manifest = part(out, number)
    assert watch.rows == []
    assert manifest["forward_images"] == N_IMAGES
    assert caplog.messages[-1] == f"{out}: another job has just finished it: nothing to do"
    assert not any("already there" in line for line in caplog.messages)
    assert files(out) == files(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.zarr.lock", "m.zarr"]


def test_a_store_moves_into_its_place_while_nobody_can_begin_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, publish, moved = tmp_path / "m.zarr", StoreWriter._publish, list[bool]()

    def watched(writer: StoreWriter, attributes: Any) -> None:
        with (tmp_path / ".m.zarr.lock").open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        publish(writer, attributes)
        moved.append(path.exists())

    monkeypatch.setattr(StoreWriter, "_publish", watched)
    Content().write(path)
    assert moved == [True]


def test_a_job_counts_its_own_images(
    part: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    totals, done = list[int](), list[int]()
    for _ in range(2):
        part(
            tmp_path / "m.zarr",
            3,
            on_total=totals.append,
            on_images=done.append,
        )
    assert totals == [6, 6]
    assert (done[0], sum(done[:-1]), done[-1]) == (0, 6, 6)
    assert "job 3 of 3: blocks 2 to 2 of 3" in caplog.messages


# --- Two jobs on one block ---


@contextmanager
def _job(path: Path, content: Content, part: tuple[int, int] | None) -> Iterator[Any]:
    with open_writer(
        path, content.layout, content.geometry, content.rows, content.request, "m", part=part
    ) as writer:
        yield writer


@pytest.mark.parametrize("second", [(1, 3), (1, 2), None])
def test_a_second_job_on_a_block_is_refused(tmp_path: Path, second: Any) -> None:
    path, content = tmp_path / "m.zarr", Content()
    with _job(path, content, (1, 3)):
        before = files(partial_path(path))
        words = r"another process is writing this store \(.*, process \d+; blocks 0 to 0\); wait"
        with pytest.raises(StoreError, match=words) as info, _job(path, content, second):
            pass
        assert "\n" not in str(info.value)
        assert files(partial_path(path)).keys() == before.keys()
        with _job(path, content, (2, 3)), _job(path, content, (3, 3)):
            pass
    with _job(path, content, second):
        pass


def test_jobs_of_other_settings_are_refused_while_one_is_at_work(tmp_path: Path) -> None:
    path, other = tmp_path / "m.zarr", Content(seed=1)
    content = Content()
    with (
        _job(path, content, (3, 3)),
        pytest.raises(StoreError, match="another process is writing this store"),
        open_writer(
            *(path, other.layout, other.geometry, other.rows, other.request, "m"),
            replace=True,
            part=(1, 3),
        ),
    ):
        pass


def test_the_job_of_a_scheduler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    path, content = tmp_path / "m.zarr", Content()
    with (
        _job(path, content, None),
        pytest.raises(StoreError, match=r"\(\S+, process \d+, job 4711; blocks 0 to 2\)"),
        _job(path, content, (2, 2)),
    ):
        pass


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("vitfeat.store.progress.fcntl.flock", unsupported)
    with (
        pytest.raises(
            StoreError, match=r"does not lock files \(Function not implemented\)"
        ) as info,
        _job(tmp_path / "m.zarr", Content(), None),
    ):
        pass
    assert "\n" not in str(info.value)


_CREATE = """
import sys
from pathlib import Path
from tests.store.filled import Content
from vitfeat.store.writer import open_writer

c, number = Content(), int(sys.argv[2])
sys.stdin.read(1)
options = {"part": (number, 3)}
with open_writer(Path(sys.argv[1]), c.layout, c.geometry, c.rows, c.request, "m", **options) as w:
    for block in w.missing_blocks():
        rows = c.layout.rows(block)
        w.write_block(block, c.part(rows), forward_images=len(rows))
"""


def test_processes_that_create_a_store_at_once(tmp_path: Path, root: Path) -> None:
    path, content = tmp_path / "m.zarr", Content()
    content.write(tmp_path / "whole.zarr")
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", _CREATE, str(path), str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for number in (1, 2, 3)
    ]
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("x")
        job.stdin.flush()
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    assert content.write(path)[0] == []
    assert files(path) == files(tmp_path / "whole.zarr")
    assert verify(path)[1] == []


# --- Which blocks ---


@pytest.mark.parametrize("n_images", [1, 22, 599, 50_000, 1_281_167])
@pytest.mark.parametrize("of", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("taps", [("cls",), ("cls", "spatial", "attention_summary")])
def test_jobs_share_all_blocks_evenly(n_images: int, of: int, taps: tuple[str, ...]) -> None:
    layout = plan_layout(S16, taps, n_images, "float16")
    parts = [layout.part(number, of) for number in range(1, of + 1)]
    assert [block for blocks in parts for block in blocks] == list(range(layout.n_blocks))
    if layout.n_blocks >= of:
        fair = layout.n_blocks / of
        assert all(0.7 * fair - 1 <= len(blocks) <= 1.3 * fair + 1 for blocks in parts)


def test_jobs_of_a_large_dataset_begin_with_shards_of_their_own() -> None:
    layout = plan_layout(S16, ("cls", "spatial", "attention_summary"), 1_281_167, "float16")
    for number in range(1, 17):
        first = layout.part(number, 16).start * layout.block
        assert all(first % layout.shard_rows(array) == 0 for array in layout.arrays)


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "1/0", "a/b", "1/", "-1/3", "1/3/3"])
def test_which_job_is_said_by_two_numbers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["extract", "m", "--index", "i", "--root", "r", "--out", "o", f"--blocks={text}"])
    assert f"{text} is not I/N with I from 1 to N" in capsys.readouterr().err
