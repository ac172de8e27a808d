"""Snakemake's records, as people see them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

from vitfeat.console import ERRORS_FROM_LOGS
from vitfeat.monitor.handler import LogHandler


class Settings(MockOutputSettings):
    def __init__(self, **changed: Any) -> None:
        super().__init__()
        self.printshellcmds = False
        for name, value in changed.items():
            setattr(self, name, value)


class TestAsSnakemakesInterfaceAsks(TestLogHandlerBase):
    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> None:  # type: ignore[override]
        return None

    @pytest.fixture(autouse=True)
    def closed(self) -> Iterator[None]:
        self.handlers: list[LogHandler] = []
        yield
        for handler in self.handlers:
            handler.close()

    def _create_handler(self) -> LogHandler:
        self.handlers.append(LogHandler(Settings(), None))
        return self.handlers[-1]


class Records:
    """Gives records to a handler as Snakemake does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def handler(self) -> LogHandler:
        # Not before the test has begun: it takes the standard error that there is then.
        return LogHandler(self._settings, None)

    def event(self, event: LogEvent | None, text: str = "", **fields: Any) -> None:
        record = logging.LogRecord("snakemake", logging.INFO, "x.py", 1, text, (), None)
        if event is not None:
            record.event = event
        for name, value in fields.items():
            setattr(record, name, value)
        self.handler.handle(record)

    def say(self, text: str) -> None:
        self.event(None, text)

    def begin(self, **counts: int) -> None:
        total = sum(counts.values())
        rows = "\n".join(f"{rule:8} {n}" for rule, n in {**counts, "total": total}.items())
        table = f"Job stats:\njob      count\n-------- -----\n{rows}\n"
        self.event(LogEvent.RUN_INFO, table, stats={**counts, "total": total})

    def job(self, job: int, rule: str, log: Path | None = None, **wildcards: str) -> None:
        self.event(
            LogEvent.JOB_INFO,
            jobid=job,
            rule_name=rule,
            log=[str(log)] if log else [],
            wildcards=wildcards,
            reason="Missing output files: x",
        )

    def finished(self, job: int) -> None:
        self.event(LogEvent.JOB_FINISHED, job_id=job)

    def failed(self, job: int, status: str, log: Path | None) -> None:
        text = f"RuleException:\nCalledProcessError in file x.smk, line 3:\nCommand 'y --log {log}'"
        self.event(LogEvent.ERROR, f"{text} {status}.", exception="RuleException")
        self.event(
            LogEvent.JOB_ERROR, jobid=job, rule_name="x", rule_msg=None, indent=False, log=[]
        )

    def end_failed(self) -> list[str]:
        self.say("Exiting because a job execution failed. Look above for error messages")
        self.event(
            LogEvent.ERROR, "WorkflowError:\nAt least one job did not complete successfully."
        )
        self.handler.close()
        self.handler.close()
        return []


@pytest.fixture
def records() -> Records:
    return Records(Settings())


def test_snakemakes_own_chatter_is_not_shown(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (
        "Assuming unrestricted shared filesystem usage.",
        "Building DAG of jobs...",
        "Using shell: /usr/bin/bash",
        "Select jobs to execute...",
        "Shutting down, this might take some time.",
        "Complete log(s): /x/.snakemake/log/y.log",
    ):
        records.say(text)
    records.begin(gram=1)
    for event in (LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.SHELLCMD):
        records.event(event, "Provided cores: 2")
    records.event(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[1])
    records.job(1, "gram")
    records.finished(1)
    records.event(LogEvent.PROGRESS, done=1, total=1)
    records.say("something that nobody here has heard of")
    records.handler.close()
    assert capsys.readouterr().err.splitlines() == [
        "1 step to do",
        "something that nobody here has heard of",
        "1 of 1 step done in 0 s",
    ]


def test_a_failed_job_is_told_once_and_its_error_last(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "photos.log"
    records.begin(index=2, gram=3)
    records.job(1, "index", log, dataset="photos")
    records.job(2, "index", None, dataset="digits")
    log.write_text("2 images are turned\nvitfeat: error: dataset photos: a.png is broken\n")
    records.failed(1, "returned non-zero exit status 1", log)
    records.finished(2)
    records.end_failed()
    assert capsys.readouterr().err.splitlines() == [
        "5 steps to do",
        "index photos failed; waiting for what still runs",
        f"index photos failed ({log})",
        "  2 images are turned",
        "1 of 5 steps done, 1 failed",
        "vitfeat: error: dataset photos: a.png is broken",
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            "returned non-zero exit status 137",
            "was killed (SIGKILL, most often for lack of memory)",
        ),
        ("died with <Signals.SIGTERM: 15>", "was killed (SIGTERM)"),
        ("returned non-zero exit status 2", "failed (exit status 2)"),
    ],
)
def test_a_job_that_could_say_nothing_has_an_error_too(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: str, said: str
) -> None:
    records.begin(extract=1)
    records.job(1, "extract", tmp_path / "m.log", dataset="photos", model="dino")
    records.failed(1, status, tmp_path / "m.log")
    records.end_failed()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"vitfeat: error: extract photos dino {said}")


def test_of_a_job_that_its_cluster_ended_the_schedulers_word_is_the_error(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    records.begin(extract=1)
    records.job(1, "extract", tmp_path / "m.log", dataset="photos", model="dino")
    said = "SLURM-job '5' failed, SLURM status is: 'CANCELLED'. For further error details see x."
    logs = [str(tmp_path / "m.log"), "slurm/5.log"]
    fields = {"rule_name": "extract", "rule_msg": said, "log": logs, "indent": False}
    records.event(LogEvent.JOB_ERROR, jobid=1, **fields)
    records.end_failed()
    assert capsys.readouterr().err.splitlines()[-1] == (
        "vitfeat: error: extract photos dino: SLURM-job '5' failed, SLURM status is: 'CANCELLED'; "
        "see slurm/5.log"
    )


def test_jobs_that_a_cluster_takes_are_not_told_one_by_one(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    records.say("SLURM run ID: 1234")
    records.begin(extract=1)
    records.job(1, "extract")
    records.say("Job 1 has been submitted with SLURM jobid 7 (log: results/logs/slurm/7.log).")
    records.handler.close()
    said = capsys.readouterr().err.splitlines()
    assert said == ["SLURM run ID: 1234", "1 step to do", "0 of 1 step done in 0 s"]


def test_jobs_of_a_submission_that_failed_name_its_log(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    records.begin(cka_pair=2)
    for job in (1, 2):
        records.job(job, "cka_pair", tmp_path / f"{job}.log", model=f"m{job}")
    # One of them says itself what was wrong.
    (tmp_path / "2.log").write_text("vitfeat: error: m2: no such file\n")
    records.event(LogEvent.GROUP_ERROR, groupid="cka", aux_logs=["slurm/7.log"], job_error_info=[])
    for job in (1, 2):
        fields = {"rule_name": "cka_pair", "rule_msg": None, "log": [], "indent": True}
        records.event(LogEvent.JOB_ERROR, jobid=job, **fields)
    records.end_failed()
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "vitfeat: error: cka pair m1: failed, or another job of its submission did; "
        "see slurm/7.log",
        "vitfeat: error: m2: no such file",
    ]


def test_a_bug_shows_its_traceback_once(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "m.log"
    records.begin(extract=1)
    records.job(1, "extract", log)
    log.write_text(
        "Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero\n"
    )
    records.failed(1, "returned non-zero exit status 1", log)
    records.end_failed()
    said = capsys.readouterr().err
    assert said.count("ZeroDivisionError") == 1
    assert said.splitlines()[-1].startswith("vitfeat: error: extract failed (exit status 1); see ")


def test_the_same_error_of_many_jobs_is_said_once(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    records.begin(gram=3)
    for job in range(3):
        log = tmp_path / f"{job}.log"
        records.job(job, "gram", log)
        log.write_text("vitfeat: error: the disk is full\n")
        records.failed(job, "returned non-zero exit status 1", log)
    records.end_failed()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "vitfeat: error: the disk is full"
    assert sum("disk" in line for line in lines) == 1


def test_an_interrupted_run_says_how_to_go_on(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    records.begin(extract=2)
    for job in (1, 2):
        records.job(job, "extract", tmp_path / f"{job}.log")
    (tmp_path / "1.log").write_text("vitfeat: error: interrupted\n")
    # In any order with Snakemake's own word for it.
    records.failed(1, "returned non-zero exit status 130", tmp_path / "1.log")
    records.say("Terminating processes on user request, this might take some time.")
    records.end_failed()
    assert capsys.readouterr().err.splitlines() == [
        "2 steps to do",
        "interrupted: 0 of 2 steps done; the same command goes on from there",
    ]


def test_what_keeps_snakemake_from_starting_is_the_last_word(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "MissingInputException in rule index: missing input files: photos"
    records.event(LogEvent.ERROR, text, exception="MissingInputException")
    records.handler.close()
    assert capsys.readouterr().err.splitlines() == [text]


def test_a_plan_is_a_short_table(capsys: pytest.CaptureFixture[str]) -> None:
    records = Records(Settings(dryrun=True, stdout=True))
    records.begin(extract=1, gram=1)
    records.job(1, "extract", dataset="digits", model="demo-dino")
    records.job(2, "gram_of_all", dataset="digits")
    records.begin(extract=1, gram=1)
    records.say(
        "Reasons:\n    (check individual jobs above for details)\n"
        "    input files updated by another job:\n        gram\n"
        "    params have changed since last execution:\n        extract\n"
    )
    records.say("This was a dry-run (flag -n). The order of jobs does not matter.")
    records.handler.close()
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "job      count",
        "-------- -----",
        "extract  1",
        "gram     1",
        "total    2",
        "",
        "  extract digits demo-dino",
        "  gram of all digits",
        "",
        "params have changed since last execution: extract",
        "nothing was run; with -p too, every job is listed with its files and its command",
    ]


def test_jobs_leave_errors_to_the_handler_only_where_it_shows_them() -> None:
    for settings, expected in (
        (Settings(), True),
        (Settings(dryrun=True), False),
        (Settings(printshellcmds=True), False),
        (Settings(verbose=True), False),
    ):
        handler = LogHandler(settings, None)
        assert (ERRORS_FROM_LOGS in os.environ) is expected
        handler.close()
        assert ERRORS_FROM_LOGS not in os.environ
