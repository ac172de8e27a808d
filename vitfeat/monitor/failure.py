"""Why a step failed, in words for people: its own error, or what its log and its exit say."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from vitfeat.monitor.run import Step
from vitfeat.text import nearest

_ERROR = "vitfeat: error: "
# Of a log, so many last lines are shown.
_LINES = 20

_EXIT = re.compile(r"returned non-zero exit status (\d+)")
_SIGNAL = re.compile(r"died with <Signals\.(\w+)")
_NO_RULE = re.compile(r"No rule to produce (.+) \(if you use input functions")

MADE: list[str] = []
"""What the workflow makes; the Snakefile says it."""


def failure_lines(step: Step, causes: Sequence[str]) -> tuple[list[str], str]:
    """Return the lines of a failed step's log, under a heading, and its error in one line.

    ``causes`` are what Snakemake said of commands that failed; that of the step names its log.
    """
    said = _log_lines(step)
    errors = [line for line in said if line.startswith(_ERROR)]
    others = [line for line in said if not line.startswith(_ERROR)][-_LINES:]
    where = f" ({step.log})" if step.log else ""
    lines = [f"{step.name} failed{where}", *(f"  {line}" for line in others)]
    if errors:
        return lines, errors[-1]
    if step.told:
        return lines, f"{_ERROR}{step.name}: {step.told}"
    cause = next((c for c in reversed(causes) if step.log and str(step.log) in c), "")
    see = f"; see {step.log}" if others else ""
    return lines, f"{_ERROR}{step.name} {_how(cause)}{see}"


def no_rule_line(text: str) -> str | None:
    """Return in one line what Snakemake says of a target that nothing makes; None of all else."""
    if (missing := _NO_RULE.search(text)) is None:
        return None
    target = missing.group(1)
    return f"{_ERROR}{target}: no rule and no file of this config{nearest(target, MADE)}"


def _log_lines(step: Step) -> list[str]:
    if step.log is None:
        return []
    try:
        return step.log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _how(cause: str) -> str:
    if (died := _SIGNAL.search(cause)) is not None:
        name = died.group(1)
    elif (exited := _EXIT.search(cause)) is None:
        return "failed"
    elif (status := int(exited.group(1))) <= 128:
        return f"failed (exit status {status})"
    else:
        # As a shell says that what it ran was killed.
        known = {s.value: s.name for s in signal.Signals}
        name = known.get(status - 128, f"signal {status - 128}")
    memory = ", most often for lack of memory" if name == "SIGKILL" else ""
    return f"was killed ({name}{memory})"
