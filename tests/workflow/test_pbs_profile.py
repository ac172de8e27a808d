"""The workflow through a second engine, with stand-ins for the commands of its scheduler."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.workflow.harness import MINI, Workflow

# A cluster of one node that runs what it is given, one job at a time, and never forgets a job.
QSUB = """\
number=$(($(cat "$PBS_STAND_IN/count" 2> /dev/null || echo 0) + 1))
echo $number > "$PBS_STAND_IN/count"
echo "$*" >> "$PBS_STAND_IN/asked"
for script; do :; done
sh "$script" > "$PBS_STAND_IN/$number.log" 2>&1
echo $? > "$PBS_STAND_IN/$number"
echo $number
"""
QSTAT = """\
for number; do :; done
echo "    job_state = F"
echo "    Exit_status = $(cat "$PBS_STAND_IN/$number")"
"""


def test_pbs_runs_the_same_rules_with_what_their_jobs_need(root: Path, tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (commands / name).write_text(f"#!/bin/sh\n{text}")
        (commands / name).chmod(0o755)
    profile = root / "workflow/profiles/pbs"
    workflow = Workflow(root, tmp_path, {**MINI, "models": ["demo-dino"]}, cores=None)
    workflow.environment["PATH"] = f"{commands}:{os.environ['PATH']}"
    workflow.environment["PBS_STAND_IN"] = str(tmp_path)
    done = workflow.run(
        str(workflow.results / "cka/gram/digits/cls/demo-dino.safetensors"),
        *("--profile", str(profile), "--seconds-between-status-checks", "1"),
        # The profile's are of a run in the project's folder.
        *("--cluster-generic-submit-cmd", str(profile / "submit.py")),
        *("--cluster-generic-status-cmd", str(profile / "status.py")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    names = [line.split()[4].removeprefix("vitfeat-") for line in asked]
    assert names == ["demo_da", "index", "small"]
    selected = [re.sub(r"mem=[1-9]\d+mb", "mem", line.split()[6]) for line in asked[1:]]
    assert selected == ["select=1:ncpus=4:mem", "select=1:ncpus=2:mem:ngpus=1"]
    assert [line.split()[8] for line in asked[:2]] == ["walltime=00:05:00", "walltime=04:00:00"]
