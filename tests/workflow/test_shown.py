"""What a person sees of a run: on a terminal, without one, of a plan, and when it is stopped."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.monitor.terminal import FakeTerminal
from tests.workflow.harness import MINI, Workflow


def _command(workflow: Workflow, *arguments: str) -> list[str]:
    config = workflow.folder / "config.yaml"
    config.write_text(yaml.safe_dump({**workflow.config, "results": str(workflow.results)}))
    snakefile = str(workflow.root / "Snakefile")
    # By the name of the program, as people start it: what is found must not depend on `-m`.
    program = str(Path(sys.executable).with_name("snakemake"))
    line = ["--cores", "2", "--snakefile", snakefile, "--configfile", str(config)]
    return [program, *arguments, *line]


@pytest.fixture
def mini(root: Path, tmp_path: Path) -> Workflow:
    return Workflow(root, tmp_path, MINI)


def test_a_terminal_shows_what_runs_and_at_last_what_was_done(mini: Workflow) -> None:
    ours, theirs = pty.openpty()
    index = str(mini.results / "datasets/digits.csv")
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(mini.root)}
    with subprocess.Popen(
        _command(mini, index), stderr=theirs, cwd=mini.folder, env=environment
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 4096)
            except OSError:  # The other end is closed.
                break
    os.close(ours)
    assert process.returncode == 0
    text = written.decode().replace("\r\n", "\n")
    terminal = FakeTerminal()
    terminal.write(text)
    assert terminal.shown[2:3] == ["2 steps to do"]
    assert re.fullmatch(r"2 of 2 steps done in \d+ (s|min)", terminal.shown[3])
    assert len(terminal.shown) == 4
    # While it ran.
    assert re.search(r"  (demo data digits|index digits)  \d+ s\n[01] of 2 steps done", text)


def test_without_a_terminal_a_run_is_a_few_plain_lines(mini: Workflow) -> None:
    done = mini.run(str(mini.results / "datasets/digits.csv"))
    lines = done.stderr.splitlines()
    assert lines[1].startswith("vitfeat: disk: at most 4.0 MiB to write, about 3.6 MiB ")
    assert lines[2] == "2 steps to do"
    assert lines[-1].startswith("2 of 2 steps done in ")
    assert len(lines) < 10
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_a_plan_is_short_and_says_how_to_see_more(mini: Workflow) -> None:
    environment = {**os.environ, "PYTHONPATH": str(mini.root)}
    plan = subprocess.run(
        _command(mini, "-n"),
        capture_output=True,
        text=True,
        cwd=mini.folder,
        env=environment,
        check=True,
    )
    lines = plan.stdout.splitlines()
    assert len(lines) < 25
    assert re.fullmatch(r"extract_of_all +1", lines[4])
    assert lines[-1].startswith("nothing was run; with -p too")


@pytest.mark.parametrize("behind", ["results/cka/all.png", "Snakefile", "image.png"])
def test_a_target_behind_configfile_is_one_line(mini: Workflow, behind: str) -> None:
    (mini.folder / "image.png").write_bytes(b"\x89PNG\xff")
    environment = {**os.environ, "PYTHONPATH": str(mini.root)}
    done = subprocess.run(
        [*_command(mini, "-n"), behind],
        capture_output=True,
        text=True,
        cwd=mini.folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert said.count("targets stand before it") == 1


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("results/ckaa/all.png", "results/cka/all.png"),
        ("results/cka/digits/cls/demo-dino--demo-mea.csv", "demo-dino--demo-mae.csv"),
        ("results/datasets/digitz.csv", "results/datasets/digits.csv"),
        ("results/features/digits/demo-dinno.json", "results/features/digits/demo-dino.json"),
        ("extrct", "extract"),
        ("--forcerun=extrct", "extract"),
    ],
)
def test_a_target_that_nothing_makes_is_one_line_with_the_nearest(
    mini: Workflow, target: str, near: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(mini.root)}
    target = target.replace("results", str(mini.results))
    done = subprocess.run(
        _command(mini, "-n", target),
        capture_output=True,
        text=True,
        cwd=mini.folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    (said,) = [line for line in done.stdout.splitlines() if "error" in line]
    assert "Exception" not in done.stdout + done.stderr
    what = target.removeprefix("--forcerun=")
    assert said.startswith(f"vitfeat: error: {what}: no rule and no file of this config (did you ")
    assert f"{near.replace('results', str(mini.results))}'?)" in said


def test_ctrl_c_says_how_far_it_was_and_how_to_go_on(mini: Workflow) -> None:
    environment = {**os.environ, "PYTHONPATH": str(mini.root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        _command(mini),
        stderr=subprocess.PIPE,
        text=True,
        cwd=mini.folder,
        env=environment,
        start_new_session=True,
        # A shell lets what it runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith("steps to do\n"):
                break
        # The job has begun: Python itself says a traceback when it is stopped while it starts.
        log = mini.results / "logs/extract/digits.log"
        for _ in range(600):
            if log.exists():
                break
            time.sleep(0.1)
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read().splitlines()
    assert process.returncode != 0
    assert re.fullmatch(
        r"interrupted: \d of \d+ steps done; the same command goes on from there", said[-1]
    )
    assert not any("Traceback" in line or "error" in line for line in said), said
