"""Snakemake's records, for people: what runs and how far it is; of what failed the reason, last."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from vitfeat.console import ERRORS_FROM_LOGS
from vitfeat.monitor.failure import failure_lines, no_rule_line
from vitfeat.monitor.run import Run
from vitfeat.monitor.screen import open_screen
from vitfeat.text import duration, plural

# How often the terminal is drawn anew, and logs are read.
_SECONDS_BETWEEN_LOOKS = 0.5

# What Snakemake says of itself in every run. What is not known here is shown.
_CHATTER = (
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Cannot restore ",
    "Complete log(s):",
    "Conda environments: ignored",
    "Config file ",
    "Elapsed time:",
    "Exiting because a job execution failed",
    "Group jobs: inactive",
    "Job rate limit reached",
    "Removing output files of failed job",
    "Removing temporary output",
    "Restored previous version of",
    "Rules with provenance triggered jobs",
    "Select jobs to execute",
    "Shutting down, this might take some time",
    "Singularity containers: ignored",
    "Some jobs were triggered by provenance",
    "Touching output file",
    "Trying to restart job",
    "Using shell:",
    "Would remove temporary output",
    "host:",
    # Said at the end in words of our own.
    "Reasons:",
    "Terminating processes on user request",
    "This was a dry-run",
)
# What an executor says of every job that it hands to a cluster.
_SUBMITTED = ("has been submitted with SLURM", "Submitted array job", "Auto-selected partition")
_FAILED = "At least one job did not complete successfully"
_INTERRUPTED = "Terminating processes on user request"

# Snakemake reads config files before the workflow is there, and says so with a traceback.
_CONFIGFILE = (
    "vitfeat: error: --configfile: {}; it takes every word behind it for a config file, so that "
    "targets stand before it"
)

# Jobs of a plan that are listed one by one.
_FEW_JOBS = 12
# Stores of which it is said why they are extracted.
_FEW_STORES = 3
# Why an extraction runs whose manifest is there.
_DROPPED = re.compile(r"Missing output files: \S+\.transient")
# Reasons that are no news: files are not there yet, or those that they are made from.
_PLAIN_REASONS = ("output files have to be generated", "input files updated by another job")


class LogHandler(LogHandlerBase):
    """Shows a run.

    With ``--printshellcmds``, ``--verbose`` or ``--debug-dag`` Snakemake's own words are shown.
    Snakemake hands it the records in a thread of their own.
    """

    def __post_init__(self) -> None:
        settings = self.common_settings
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._screen = open_screen(self._stream)
        self._own_words: logging.Handler | None = None
        if settings.printshellcmds or settings.verbose or settings.debug_dag:
            self._own_words = _own_words(settings)
        elif not settings.dryrun:
            # Jobs inherit it.
            os.environ[ERRORS_FROM_LOGS] = "1"
        self._run: Run | None = None
        self._ticker: threading.Thread | None = None
        self._closing = threading.Event()
        self._plan: str | None = None
        self._planned: list[str] = []
        self._again: list[str] = []
        self._reasons: list[str] = []
        self._causes: list[str] = []
        # Of the submission whose jobs are told next.
        self._group_log = ""
        self._last_words: list[str] = []
        self._interrupted = False
        self._closed = False

    def emit(self, record: LogRecord) -> None:
        """Take a record."""
        try:
            if self._own_words is not None:
                self._own_words.handle(record)
            else:
                self._take(record)
        except BrokenPipeError:  # `snakemake -n | head`
            pass
        except Exception:
            self.handleError(record)

    def _take(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        if event is None:
            self._message(record)
        elif event == LogEvent.RUN_INFO:
            self._begin(record)
        elif event == LogEvent.JOB_INFO:
            self._job(record)
        elif event == LogEvent.JOB_FINISHED and self._run is not None:
            self._run.finish(record.job_id)  # type: ignore[attr-defined]
        elif event == LogEvent.GROUP_ERROR:
            self._group_log = next(iter(record.aux_logs), "")  # type: ignore[attr-defined]
        elif event == LogEvent.JOB_ERROR:
            self._failed(record)
        elif event == LogEvent.ERROR:
            self._error(record)

    def _message(self, record: LogRecord) -> None:
        text = record.getMessage().strip()
        if text.startswith(_INTERRUPTED):
            self._interrupted = True
        if text.startswith("Reasons:"):
            self._reasons = _reasons(text)
        chatter = text.startswith(_CHATTER) or any(words in text for words in _SUBMITTED)
        if text and text != "None" and not chatter:
            self._screen.say(text)

    def _begin(self, record: LogRecord) -> None:
        counts: Mapping[str, int] = record.stats  # type: ignore[attr-defined]
        if self.common_settings.dryrun:
            self._plan = record.getMessage().partition("\n")[2].strip()
            return
        self._run = Run({rule: n for rule, n in counts.items() if rule != "total"})
        self._screen.say(f"{plural(self._run.total, 'step')} to do")
        if not self.common_settings.quiet:
            self._ticker = threading.Thread(target=self._tick, args=(self._run,), daemon=True)
            self._ticker.start()

    def _tick(self, run: Run) -> None:
        while not self._closing.wait(_SECONDS_BETWEEN_LOOKS):
            # Outside the lock: a slow file system must not hold up Snakemake's records.
            run.look()
            with self.lock:  # type: ignore[union-attr]
                try:
                    self._screen.show(run)
                except BrokenPipeError:
                    return

    def _job(self, record: LogRecord) -> None:
        job: Any = record
        name = " ".join([job.rule_name.replace("_", " "), *map(str, job.wildcards.values())])
        if job.rule_name == "extract" and _DROPPED.fullmatch(job.reason):
            self._again.append(name.partition(" ")[2])
        if self._run is not None:
            self._run.start(job.jobid, job.rule_name, name, Path(job.log[0]) if job.log else None)
        elif self.common_settings.dryrun:
            self._planned.append(f"  {name}")

    def _failed(self, record: LogRecord) -> None:
        job: Any = record
        step = None if self._run is None else self._run.fail(job.jobid)
        if self._run is None or step is None:
            return
        step.told = _told(job, self._group_log)
        if not self._run.running:
            return
        if not failure_lines(step, ())[1].endswith(": interrupted"):
            self._screen.say(f"{step.name} failed; waiting for what still runs")

    def _error(self, record: LogRecord) -> None:
        text = record.getMessage().strip()
        if "CalledProcessError" in text:
            # The job's log says more; Snakemake does not say here whose it is.
            self._causes.append(text)
        elif "load_configfile" in text:
            self._last_words.append(_CONFIGFILE.format(text.splitlines()[-1]))
        elif _FAILED not in text:
            self._last_words.append(no_rule_line(text) or text)

    def close(self) -> None:
        """Say how it ended; Snakemake calls it more than once."""
        self._closing.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None
        if not self._closed and self._own_words is None:
            self._closed = True
            os.environ.pop(ERRORS_FROM_LOGS, None)
            try:
                self._screen.clear()
                for line in self._ending():
                    self._screen.say(line)
            except BrokenPipeError:
                pass
        super().close()

    def _ending(self) -> Sequence[str]:
        if self._plan is not None and not self._last_words:
            few = self._planned if len(self._planned) <= _FEW_JOBS else []
            return [
                self._plan,
                *(["", *few] if few else []),
                "",
                *self._reasons,
                *_extracted_again(self._again),
                "nothing was run; with -p too, every job is listed with its files and its command",
            ]
        if self._run is None:
            return self._last_words
        run = self._run
        done = f"{run.done:,} of {plural(run.total, 'step')} done"
        if self._interrupted:
            return [*self._last_words, f"interrupted: {done}; the same command goes on from there"]
        failed = [failure_lines(step, self._causes) for step in run.failed.values()]
        if failed or self._last_words:
            before = [line for lines, _ in failed for line in lines]
            errors = dict.fromkeys([*self._last_words, *(error for _, error in failed)])
            return [*before, f"{done}, {len(failed)} failed", *errors]
        return [f"{done} in {duration(run.elapsed)}"]

    @property
    def writes_to_stream(self) -> bool:
        """Say that Snakemake's own messages are not needed."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Say that Snakemake's log file is needed."""
        return False

    @property
    def has_filter(self) -> bool:
        """Say that all records are wanted."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Say that words are chosen here."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """Say that rules are of no interest."""
        return False


def _told(job: Any, group_log: str) -> str:
    """Return what an executor says of a job that failed, and where its own log of it is."""
    if job.indent:
        # One of those that share a submission: which of them failed first, the log says.
        return f"failed, or another job of its submission did; see {group_log}" if group_log else ""
    said, _, _ = (job.rule_msg or "").partition("For further error details")
    # Behind the job's logs stand those of the executor.
    where = f"; see {job.log[-1]}" if said and job.log else ""
    return f"{' '.join(said.split()).rstrip('.')}{where}" if said else ""


def _reasons(text: str) -> list[str]:
    """Return what a plan says of why jobs run again, a line each reason."""
    lines = [line.strip() for line in text.splitlines()[1:]]
    reasons = [line for line in lines if line.endswith(":")]
    return [
        f"{reason} {lines[lines.index(reason) + 1]}"
        for reason in reasons
        if not reason.startswith(_PLAIN_REASONS)
    ]


def _extracted_again(stores: Sequence[str]) -> list[str]:
    """Say which stores are extracted although they are there."""
    if not stores:
        return []
    # Snakemake has jobs in any order.
    stores = sorted(stores)
    more = f", and {len(stores) - _FEW_STORES} more" if len(stores) > _FEW_STORES else ""
    return [
        "extracted anew, since what was dropped after use (extraction.keep) is needed again: "
        f"{', '.join(stores[:_FEW_STORES])}{more}"
    ]


def _own_words(settings: Any) -> logging.Handler:
    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

    handler: logging.Handler = ColorizingTextHandler(
        nocolor=settings.nocolor,
        stream=sys.stdout if settings.stdout else sys.stderr,
        formatter=DefaultFormatter(settings.quiet, settings.show_failed_logs),
        filter=DefaultFilter(
            settings.quiet,
            settings.debug_dag,
            settings.verbose,
            settings.dryrun,
            settings.printshellcmds,
        ),
    )
    return handler
