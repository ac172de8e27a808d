"""A run of the workflow: its steps, what runs now, what failed, and the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from vitfeat.progress import Clock, Progress, read_progress

# A line of progress is shorter; what is before the last line of a log does not matter.
_TAIL = 4096
# Time left is not said before so many steps are done, or a step tells its own.
_ENOUGH_STEPS = 3


@dataclass
class Step:
    """A job that was started; what its log says of its progress, and of which of several models.

    ``told`` is what a cluster's scheduler said of its failure.
    """

    rule: str
    name: str
    log: Path | None
    started: float
    progress: Progress | None = None
    seen: float = 0.0
    model: str = ""
    told: str = ""
    _stamp: tuple[int, int] | None = field(init=False)
    _told: tuple[str, Progress] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # A log that is already there is of an earlier job, until it changes. Clocks of other
        # machines play no part.
        self._stamp = self._log_stamp()

    def look(self, now: float) -> None:
        """Read the progress from the log, if the log has changed."""
        stamp = self._log_stamp()
        if self.log is None or stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, stamp[0] - _TAIL))
                lines = file.read(_TAIL).decode("utf-8", "replace").splitlines()
        except OSError:
            return
        told = next(filter(None, map(read_progress, reversed(lines))), None)
        if told is None or told == self._told:
            return
        self._told, self.seen = told, now
        what, self.progress = told
        self.model = "" if what in self.name.split() else what

    def seconds_left(self, now: float) -> float | None:
        """Return the time that the job itself says it needs; it tells none of further models."""
        left = None if self.progress is None or self.model else self.progress.seconds_left
        return None if left is None else max(0.0, left - (now - self.seen))

    def _log_stamp(self) -> tuple[int, int] | None:
        if self.log is None:
            return None
        try:
            found = self.log.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


class Run:
    """The steps of one run, by how many jobs of each rule there are."""

    def __init__(self, counts: Mapping[str, int], clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._waiting = Counter(counts)
        self._seconds: dict[str, list[float]] = {}
        self.started = clock()
        self.total = sum(counts.values())
        self.done = 0
        self.running: dict[int, Step] = {}
        self.failed: dict[int, Step] = {}

    def start(self, job: int, rule: str, name: str, log: Path | None) -> None:
        """Note that a job has started."""
        self._waiting[rule] -= 1
        self.failed.pop(job, None)  # It is tried again.
        self.running[job] = Step(rule, name, log, self._clock())

    def finish(self, job: int) -> None:
        """Note that a job is done."""
        if (step := self.running.pop(job, None)) is not None:
            self.done += 1
            self._seconds.setdefault(step.rule, []).append(self._clock() - step.started)

    def fail(self, job: int) -> Step | None:
        """Note that a job has failed, and return it."""
        if (step := self.running.pop(job, None)) is not None:
            self._waiting[step.rule] += 1
            self.failed[job] = step
        return step

    def look(self) -> None:
        """Read what the jobs that run say of their progress."""
        now = self._clock()
        for step in list(self.running.values()):
            step.look(now)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.started

    def running_for(self, step: Step) -> float:
        """Return how long a step has been running."""
        return self._clock() - step.started

    def seconds_left(self) -> float | None:
        """Return how long the rest takes, as far as the steps so far tell; None before they do.

        Every waiting job takes what jobs of its rule took, or of a typical rule where none has
        finished; and as many run side by side as did so far.
        """
        now = self._clock()
        told = {job: step.seconds_left(now) for job, step in self.running.items()}
        seconds = {rule: mean(times) for rule, times in self._seconds.items()}
        for job, left in told.items():
            step = self.running[job]
            if left is not None and step.rule not in seconds:
                seconds[step.rule] = now - step.started + left
        if not seconds or (self.done < _ENOUGH_STEPS and not any(told.values())):
            return None
        typical = median(seconds.values())
        work = sum(n * seconds.get(rule, typical) for rule, n in self._waiting.items() if n > 0)
        for job, step in self.running.items():
            left = told[job]
            if left is None:
                left = max(0.0, seconds.get(step.rule, typical) - (now - step.started))
            work += left
        busy = sum(map(sum, self._seconds.values()))
        busy += sum(now - step.started for step in self.running.values())
        side_by_side = max(1.0, busy / self.elapsed) if self.elapsed else 1.0
        longest = max((left for left in told.values() if left is not None), default=0.0)
        return max(longest, work / side_by_side)
