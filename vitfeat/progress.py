"""How far a job is: counted while it runs, said as one line, and read back from that line."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from vitfeat.text import duration

Clock = Callable[[], float]

# The rate is that of this many last seconds: a slow start and a faster disk are forgotten.
_WINDOW = 60.0
# The first line comes after as many seconds as the start took, within these bounds: what was
# decoded meanwhile is pushed at once and makes a rate of its own.
_FIRST_LINE = (1.0, 5.0)
# A log file gets lines at growing distances, up to this many seconds.
_BETWEEN_LINES = 15.0

_LINE = re.compile(r"(?:(.*): )?([\d,]+) of ([\d,]+) images(?:, ([\d,.]+) images/s\b.*)?")


class Progress(NamedTuple):
    """Images that are done, of how many, and how many a second once that is known."""

    done: int
    total: int
    rate: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the others take at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def __str__(self) -> str:
        said = f"{self.done:,} of {self.total:,} images"
        if self.rate is None or self.seconds_left is None:
            return said
        digits = 0 if self.rate >= 100 else 1 if self.rate >= 1 else 3
        return f"{said}, {self.rate:,.{digits}f} images/s, {duration(self.seconds_left)} left"


def read_progress(line: str) -> tuple[str, Progress] | None:
    """Return of what a line of a log tells progress, and it; None where it says something else."""
    if (match := _LINE.fullmatch(line.strip())) is None:
        return None
    what, *numbers = match.groups()
    done, total, rate = (text and text.replace(",", "") for text in numbers)
    return what or "", Progress(int(done), int(total), float(rate) or None if rate else None)


class ProgressCounter:
    """Counts images, and says when a line is due.

    The time is counted from the second report on: the first may be of images that an interrupted
    job left, and the first batch compiles, imports and fills caches.
    """

    def __init__(self, total: int, clock: Clock = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._done = 0
        self._reports = 0
        self._points: deque[tuple[float, int]] = deque()
        self._pause = 0.0
        self._last_line = 0.0

    def add(self, n: int) -> Progress:
        """Count images that are done."""
        self._done += n
        self._reports += 1
        now = self._clock()
        if self._reports == 1:
            self._last_line = now
            return self.now()
        self._points.append((now, self._done))
        if self._reports == 2:
            low, high = _FIRST_LINE
            self._pause = min(max(now - self._last_line, low), high)
            self._last_line = now
        while len(self._points) > 2 and now - self._points[1][0] >= _WINDOW:
            self._points.popleft()
        return self.now()

    def now(self) -> Progress:
        """Return how far it is."""
        if len(self._points) < 2:
            return Progress(self._done, self._total)
        (start, before), (end, after) = self._points[0], self._points[-1]
        rate = (after - before) / (end - start) if end > start else None
        return Progress(self._done, self._total, rate)

    def line_is_due(self) -> bool:
        """Whether enough time has passed since the last time that this was true."""
        if len(self._points) < 2:
            return False
        now = self._points[-1][0]
        if now - self._last_line < self._pause:
            return False
        self._last_line, self._pause = now, min(2 * self._pause, _BETWEEN_LINES)
        return True
