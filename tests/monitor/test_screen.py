"""What stands on a terminal, and the plain lines where there is none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tests.monitor.terminal import FakeTerminal
from vitfeat.monitor.run import Run
from vitfeat.monitor.screen import PlainLines, Terminal, open_screen


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def run(clock: FakeClock, tmp_path: Path) -> Run:
    run = Run({"extract": 2, "gram": 38}, clock)
    for job in range(10, 22):
        run.start(job, "gram", "gram", None)
        clock.now += 2
        run.finish(job)
    run.start(1, "extract", "extract digits demo-mae", None)
    run.start(2, "extract", "extract digits demo-dino", tmp_path / "dino.log")
    clock.now += 4
    (tmp_path / "dino.log").write_text("demo-dino: 100 of 300 images, 50.0 images/s, 4 s left\n")
    run.look()
    return run


SHOWN = [
    "  extract digits demo-dino  100 of 300 images, 50.0 images/s, 4 s left",
    "  extract digits demo-mae   4 s",
    "12 of 40 steps done, about 52 s left",
]


def test_a_job_of_several_models_is_shown_with_the_one_that_it_is_at(
    run: Run, tmp_path: Path
) -> None:
    run.start(3, "extract_of_all", "extract of all digits", tmp_path / "digits.log")
    (tmp_path / "digits.log").write_text("demo-mae: 0 of 300 images\n")
    run.look()
    stream = FakeTerminal()
    Terminal(stream).show(run)  # type: ignore[arg-type]
    assert "  extract of all digits     demo-mae: 0 of 300 images" in stream.shown


def test_a_terminal_shows_steps_what_runs_and_the_time_left(run: Run) -> None:
    stream = FakeTerminal()
    screen = Terminal(stream)  # type: ignore[arg-type]
    for _ in range(3):
        screen.show(run)
        assert stream.shown == SHOWN
    run.finish(2)
    screen.show(run)
    assert stream.shown[0] == "  extract digits demo-mae  4 s"
    assert stream.shown[1].startswith("13 of 40 steps done")
    screen.say("a note")
    screen.show(run)
    assert stream.shown[0] == "a note"
    screen.clear()
    assert stream.shown == ["a note"]


def test_what_other_processes_write_stays_on_the_terminal(run: Run) -> None:
    stream = FakeTerminal()
    screen = Terminal(stream)  # type: ignore[arg-type]
    screen.show(run)
    stream.write("a library warns\n")
    screen.show(run)
    assert stream.shown == ["a library warns", *SHOWN]
    stream.write("^C")
    screen.say("stopped")
    assert stream.shown[0] == "a library warns"


@pytest.mark.parametrize(("columns", "rows"), [(30, 10), (100, 3)])
def test_a_small_terminal_is_not_overdrawn(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, rows: int
) -> None:
    monkeypatch.setattr(
        "shutil.get_terminal_size", lambda *_, **__: os.terminal_size((columns, rows))
    )
    stream = FakeTerminal()
    Terminal(stream).show(run)  # type: ignore[arg-type]
    assert max(map(len, stream.shown)) < columns
    if rows < 5:
        assert stream.shown[1] == "  and 1 more"


def test_without_a_terminal_there_is_a_line_now_and_then(run: Run, clock: FakeClock) -> None:
    stream = io.StringIO()
    screen = PlainLines(stream, clock)
    start = clock.now
    # An hour, looked at twice a second.
    while clock.now < start + 3600:
        screen.show(run)
        clock.now += 0.5
    lines = stream.getvalue().splitlines()
    assert 60 < len(lines) < 75
    assert lines[0].startswith("12 of 40 steps done, about ")
    assert "; running: extract digits demo-dino (100 of 300 images, 50.0 images/s" in lines[0]
    assert "extract digits demo-mae (9 s)" in lines[0]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_that_can_draw_nothing_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeTerminal()
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_screen(stream), PlainLines)  # type: ignore[arg-type]
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_screen(stream), Terminal)  # type: ignore[arg-type]
    assert isinstance(open_screen(io.StringIO()), PlainLines)
