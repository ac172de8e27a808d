"""Steps, progress and time left of a run, by a clock of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vitfeat.monitor.run import Run


class FakeClock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def _does(run: Run, clock: FakeClock, rule: str, jobs: range, seconds: float) -> None:
    """Run jobs two at once."""
    for job in range(jobs.start, jobs.stop, 2):
        run.start(job, rule, rule, None)
        run.start(job + 1, rule, rule, None)
        clock.now += seconds
        run.finish(job)
        run.finish(job + 1)


def test_time_left_is_what_jobs_of_the_same_rules_took(clock: FakeClock) -> None:
    run = Run({"extract": 10, "gram": 20}, clock)
    assert run.seconds_left() is None
    _does(run, clock, "extract", range(10), 30)
    _does(run, clock, "gram", range(10, 20), 4)
    assert (run.done, run.total) == (20, 30)
    # Ten more of 4 s, two at once.
    assert run.seconds_left() == pytest.approx(20)


def test_a_rule_of_which_none_has_finished_takes_a_typical_time(clock: FakeClock) -> None:
    run = Run({"index": 2, "extract": 2, "gram": 2, "cka": 100}, clock)
    for number, (rule, seconds) in enumerate((("index", 3), ("extract", 60), ("gram", 2))):
        _does(run, clock, rule, range(2 * number, 2 * number + 2), seconds)
    assert run.seconds_left() == pytest.approx(100 * 3 / 2)


def test_what_a_job_says_of_itself_counts_more_than_others_of_its_rule(
    clock: FakeClock, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    run = Run({"extract": 2}, clock)
    run.start(1, "extract", "extract digits demo-dino", log)
    run.look()
    assert run.seconds_left() is None
    clock.now += 10
    log.write_text("notes\ndemo-dino: 100 of 1,000 images, 10 images/s, 90 s left\n")
    run.look()
    (step,) = run.running.values()
    assert step.progress == (100, 1_000, 10.0)
    # 90 s of this one, and the other takes 100 s as this one will; one at a time, as so far.
    assert run.seconds_left() == pytest.approx(190)
    # Between two lines of its log, the time goes on.
    clock.now += 30
    assert step.seconds_left(clock.now) == pytest.approx(60)
    clock.now += 300
    assert step.seconds_left(clock.now) == 0


def test_a_log_of_an_earlier_run_says_nothing_until_it_changes(
    clock: FakeClock, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    # Of a job that was killed; the new one still waits in a cluster's queue.
    log.write_text("demo-dino: 900 of 1,000 images, 10 images/s, 10 s left\n")
    run = Run({"extract": 1}, clock)
    run.start(1, "extract", "extract", log)
    run.look()
    assert run.running[1].progress is None
    log.write_text("demo-dino: 32 of 1,000 images, 10 images/s, 96 s left\n")
    os.utime(log, (1, 1))  # The other machine's clock is wrong.
    run.look()
    assert run.running[1].progress == (32, 1_000, 10.0)


def test_a_job_of_several_models_says_which_it_is_at_and_nothing_of_the_time_of_others(
    clock: FakeClock, tmp_path: Path
) -> None:
    run = Run({"extract_of_all": 1}, clock)
    run.start(1, "extract_of_all", "extract of all digits", tmp_path / "a.log")
    (step,) = run.running.values()
    for model in ("demo-dino", "demo-mae"):
        with (tmp_path / "a.log").open("a") as log:
            log.write(f"{model}: 40 of 80 images, 10 images/s, 4 s left\n{model}: other words\n")
        clock.now += 4
        run.look()
        assert (step.model, step.progress) == (model, (40, 80, 10.0))
        assert run.seconds_left() is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n" * 5000, b"demo: 3 of", b"\n" * 9000])
def test_any_log_is_read(clock: FakeClock, tmp_path: Path, content: bytes) -> None:
    run = Run({"extract": 1}, clock)
    run.start(1, "extract", "extract", tmp_path / "a.log")
    (tmp_path / "a.log").write_bytes(content)
    run.look()
    assert run.running[1].progress is None


def test_a_failed_job_that_is_tried_again_is_no_failure(clock: FakeClock) -> None:
    run = Run({"extract": 1}, clock)
    run.start(1, "extract", "extract", None)
    run.fail(1)
    assert list(run.failed) == [1]
    run.start(1, "extract", "extract", None)
    run.finish(1)
    assert (run.failed, run.done) == ({}, 1)


def test_time_left_at_the_end_is_none(clock: FakeClock) -> None:
    run = Run({"extract": 4}, clock)
    _does(run, clock, "extract", range(4), 10)
    assert run.seconds_left() == 0
