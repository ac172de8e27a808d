"""How the benchmarks time: pairs in turn, so that a machine's drift meets both sides alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Pair:
    """Seconds of two things that were run in turn.

    Attributes
    ----------
    ours, other
        Seconds of each round.
    """

    ours: list[float]
    other: list[float]

    @property
    def speed(self) -> float:
        """Median over the rounds of how fast ours is beside the other: 1 is as fast."""
        return statistics.median(b / a for a, b in zip(self.ours, self.other, strict=True))

    def row(self, name: str, target: str) -> str:
        """Return a line of a Markdown table."""
        ours, other = statistics.median(self.ours), statistics.median(self.other)
        ratios = [b / a for a, b in zip(self.ours, self.other, strict=True)]
        return (
            f"| {name} | {ours:.2f} s | {other:.2f} s | {self.speed:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {target} |"
        )


def in_turn(
    ours: Callable[[], None],
    other: Callable[[], None],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Pair:
    """Time two functions in turn, after rounds that do not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(warmup + rounds):
        for function, kept in ((ours, seconds[0]), (other, seconds[1])):
            started = clock()
            function()
            if number >= warmup:
                kept.append(clock() - started)
    return Pair(*seconds)


def machine() -> str:
    """Say what the numbers were taken on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {os.cpu_count()} cores{gpu}; {versions}"
