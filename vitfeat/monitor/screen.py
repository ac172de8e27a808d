"""Where a run is shown: a few lines at the bottom of a terminal, or a plain line now and then."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from vitfeat.monitor.run import Run, Step
from vitfeat.progress import Clock
from vitfeat.text import duration

# Steps that are shown at once; a cluster may run hundreds.
_MOST_STEPS = 8
# A plain line comes after so many seconds, and then at growing distances up to the last number.
_FIRST_LINE, _GROWTH, _BETWEEN_LINES = 5.0, 1.5, 60.0


class Screen(Protocol):
    """Where a run is shown."""

    def say(self, line: str) -> None:
        """Write a line that stays."""

    def show(self, run: Run) -> None:
        """Show how far a run is, again and again."""

    def clear(self) -> None:
        """Take away what does not stay."""


def open_screen(stream: TextIO) -> Screen:
    """Return the screen that suits a stream."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return Terminal(stream)
    return PlainLines(stream)


class Terminal:
    """Lines below everything that was said, drawn over one another.

    The cursor waits above them, on an empty line: what another process writes lands there and
    stays, since only what is below the cursor is drawn anew.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        """Write a line that stays, in the place of the others."""
        self._write(f"\r\x1b[J{line}\n")

    def show(self, run: Run) -> None:
        """Draw the lines anew."""
        size = shutil.get_terminal_size()
        steps = _by_age(run)
        fitting = max(1, min(_MOST_STEPS, size.lines - 4))
        names = [step.name for step in steps[:fitting]]
        width = max(map(len, names), default=0)
        lines = [
            f"  {name:<{width}}  {_state(run, step)}"
            for name, step in zip(names, steps, strict=False)
        ]
        if len(steps) > fitting:
            lines.append(f"  and {len(steps) - fitting} more")
        lines.append(_summary(run))
        # A line that wraps would count as two.
        below = "\n".join(line[: size.columns - 1] for line in lines)
        self._write(f"\r\x1b[J\n{below}\x1b[{len(lines)}A\r")

    def clear(self) -> None:
        """Take the lines away."""
        self._write("\r\x1b[J")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class PlainLines:
    """A line now and then, for logs of batch systems and of continuous integration."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pause = _FIRST_LINE
        self._last: float | None = None

    def say(self, line: str) -> None:
        """Write a line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def show(self, run: Run) -> None:
        """Write how far the run is, if it was not said of late."""
        now = self._clock()
        if self._last is None:
            self._last = now
        if now - self._last < self._pause:
            return
        self._last, self._pause = now, min(self._pause * _GROWTH, _BETWEEN_LINES)
        steps = _by_age(run)
        shown = [f"{step.name} ({_state(run, step)})" for step in steps[:3]]
        if len(steps) > 3:
            shown.append(f"{len(steps) - 3} more")
        self.say(_summary(run) + (f"; running: {', '.join(shown)}" if shown else ""))

    def clear(self) -> None:
        """Do nothing: all lines stay."""


def _by_age(run: Run) -> Sequence[Step]:
    """Return the steps that run, those that tell their progress first, then the oldest."""
    return sorted(run.running.values(), key=lambda step: (step.progress is None, step.started))


def _state(run: Run, step: Step) -> str:
    if step.progress is not None:
        return f"{step.model}: {step.progress}" if step.model else str(step.progress)
    return duration(run.running_for(step))


def _summary(run: Run) -> str:
    left = run.seconds_left()
    rest = "" if left is None else f", about {duration(left)} left"
    return f"{run.done:,} of {run.total:,} steps done{rest}"
