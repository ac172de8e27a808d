"""How far a job is: the rate, the time left, and when a line is due, by a clock of our own."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vitfeat.console import ERRORS_FROM_LOGS, Console
from vitfeat.progress import Progress, ProgressCounter, read_progress


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_start_and_the_first_batch_do_not_count_in_the_rate(clock: FakeClock) -> None:
    counter = ProgressCounter(600, clock)
    clock.now += 300  # Weights, imports, compilation.
    assert counter.add(32).seconds_left is None
    clock.now += 20  # Another batch that compiles.
    assert counter.add(32).seconds_left is None
    clock.now += 2
    progress = counter.add(32)
    assert progress == (96, 600, 16.0)
    assert progress.seconds_left == 504 / 16


def test_images_of_an_interrupted_job_do_not_count_in_the_rate(clock: FakeClock) -> None:
    counter = ProgressCounter(10_000, clock)
    counter.add(9_000)
    clock.now += 5
    counter.add(10)
    for _ in range(10):
        clock.now += 1
        progress = counter.add(10)
    assert progress == (9_110, 10_000, 10.0)
    assert progress.seconds_left == 89


def test_the_rate_is_that_of_the_last_minute(clock: FakeClock) -> None:
    counter = ProgressCounter(100_000, clock)
    for _ in range(100):
        clock.now += 1
        counter.add(100)
    for _ in range(100):
        clock.now += 1
        progress = counter.add(10)
    assert progress.rate == 10


def test_lines_are_due_at_growing_distances(clock: FakeClock) -> None:
    counter = ProgressCounter(100_000, clock)
    start = clock.now
    due = []
    for _ in range(200):
        counter.add(1)
        if counter.line_is_due():
            due.append(clock.now - start)
        clock.now += 0.5
    assert due[0] <= 2
    gaps = [b - a for a, b in pairwise(due)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 15
    assert len(due) < 12


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(320, 599, 45.24), "320 of 599 images, 45.2 images/s, 6 s left"),
        (Progress(3, 50_000, 0.0312), "3 of 50,000 images, 0.031 images/s, 445.1 h left"),
        (Progress(1_200, 9_000, 3120.4), "1,200 of 9,000 images, 3,120 images/s, 2 s left"),
        (Progress(32, 599), "32 of 599 images"),
    ],
)
def test_a_line_is_read_back_as_what_it_says(progress: Progress, said: str) -> None:
    assert str(progress) == said
    for of, line in (("", said), ("demo-dino", f"demo-dino: {said}\n")):
        what, again = read_progress(line) or ("nothing", Progress(0, 0))
        assert what == of
        assert again[:2] == progress[:2]
        assert again.rate == (progress.rate and pytest.approx(progress.rate, rel=0.02))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "results/m.zarr: 599 images in 4 s, 112.2 MiB",
        "vitfeat: error: 3 of 50 images are broken",
        "dataset photos: 3 of 50 images have an orientation, 0 images/s or not",
    ],
)
def test_other_lines_of_a_log_are_no_progress(line: str) -> None:
    assert read_progress(line) is None


def test_an_extraction_writes_its_progress_to_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr("vitfeat.console.ProgressCounter", lambda n: ProgressCounter(n, clock))
    with Console(tmp_path / "m.log") as console, console.progress(100, "demo-dino") as advance:
        for _ in range(10):
            advance(10)
            clock.now += 2
    lines = (tmp_path / "m.log").read_text().splitlines()
    assert lines[0] == "demo-dino: 30 of 100 images, 5.0 images/s, 14 s left"
    assert all(map(read_progress, lines))


@pytest.mark.parametrize("shown_from_logs", [False, True])
def test_an_error_is_written_where_it_is_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shown_from_logs: bool,
) -> None:
    monkeypatch.delenv(ERRORS_FROM_LOGS, raising=False)
    if shown_from_logs:
        monkeypatch.setenv(ERRORS_FROM_LOGS, "1")
    with Console(tmp_path / "m.log") as console:
        console.error("no such thing")
    # By hand, without a log, always.
    Console().error("neither")
    assert (tmp_path / "m.log").read_text() == "vitfeat: error: no such thing\n"
    said = capsys.readouterr().err
    assert re.findall("no such thing|neither", said) == (
        ["neither"] if shown_from_logs else ["no such thing", "neither"]
    )


def _extraction(
    images: int, threads: int, batch: int, *, decode: float, push: float, workers: int, start: float
) -> list[tuple[float, int]]:
    """Return when an extraction reports how many images.

    Decoding takes `decode` seconds an image in each of the workers, or between the batches
    without; a thread pushes four images in four times `push` seconds; `start` is what the first
    of them take longer.
    """
    now, decoded, reports = 0.0, start, [(0.0, 0)]
    for first in range(0, images, batch):
        size = min(batch, images - first)
        decoded += size * decode / max(1, workers)
        now = max(now, decoded) if workers else now + size * decode
        for done in range(0, size, 4 * threads):
            now += 4 * push + (start if not first and not done else 0)
            reports.append((now, min(4 * threads, size - done)))
    return reports


@pytest.mark.parametrize(
    "kind",
    [
        {"images": 55, "threads": 2, "decode": 0.05, "push": 0.5, "workers": 1, "start": 20.0},
        {"images": 599, "threads": 1, "decode": 0.001, "push": 0.01, "workers": 0, "start": 1.5},
        {"images": 50_000, "threads": 8, "decode": 0.02, "push": 0.3, "workers": 2, "start": 8.0},
        # The disk, or the decoding, is what takes the time.
        {"images": 5_000, "threads": 8, "decode": 0.1, "push": 0.01, "workers": 2, "start": 5.0},
        {"images": 5_000, "threads": 2, "decode": 0.1, "push": 0.02, "workers": 0, "start": 0.0},
    ],
)
def test_the_first_time_left_is_right_within_a_factor_of_two(
    clock: FakeClock, kind: dict[str, Any]
) -> None:
    reports = _extraction(**kind, batch=32)
    counter = ProgressCounter(kind["images"], clock)
    begin, end = clock.now, reports[-1][0]
    said = []
    for at, n in reports:
        clock.now = begin + at
        progress = counter.add(n)
        if counter.line_is_due():
            assert progress.seconds_left is not None
            said.append((progress.seconds_left, end - at))
    (first, right), *others = said
    assert right / 2 <= first <= right * 2
    # Afterwards it comes nearer.
    for left, right in others[1:]:
        assert abs(left - right) <= max(0.2 * right, 4.0)
