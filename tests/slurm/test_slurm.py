"""The workflow on a real SLURM, held to SLURM's own records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm.cluster import CPUS, NODES, Cluster, Record, until

#: What jobs may ask for: two pairs of models at a time, of the three that one submission holds.
MEMORY_MB = 2_600

pytestmark = pytest.mark.slurm

CONFIG: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 40}},
    "analyses": {"cka": {"datasets": ["digits"], "tokens": ["cls"]}},
}


@dataclass
class Runs:
    """Snakemake on a config, with the shipped profile and a quicker look at the queue."""

    root: Path
    folder: Path
    cluster: Cluster
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def start(self, models: list[str], *arguments: str) -> subprocess.Popen[str]:
        config = self.folder / "config.yaml"
        settings = {**CONFIG, "models": models, "results": str(self.results)}
        config.write_text(yaml.safe_dump(settings))
        command = [
            *(sys.executable, "-m", "snakemake", *arguments),
            *("--profile", str(self.root / "workflow/profiles/slurm")),
            *("--resources", f"mem_mb={MEMORY_MB}", "runtime=1440", "gpu=1"),
            # This cluster keeps no accounts, and its jobs take seconds.
            *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
            *("--snakefile", str(self.root / "Snakefile"), "--configfile", str(config)),
        ]
        run = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**self.cluster.environment, "OMP_NUM_THREADS": "1"},
        )
        self.started.append(run)
        return run

    def store(self, model: str) -> str:
        return str(self.results / f"features/digits/{model}.json")

    def extractions(self, model: str) -> list[Record]:
        """Return SLURM's records of the jobs that extracted a model, in their order."""
        return self.cluster.records(f"rule_extract_wildcards_digits_{model}")

    def running(self, model: str, attempt: int = 1) -> Record:
        """Return the record of a model's extraction once its own process is at work."""
        found: list[Record] = []

        def at_work() -> bool:
            jobs = self.extractions(model)
            found[:] = [job for job in jobs[attempt - 1 :] if self.processes(job)]
            return bool(found)

        until(at_work, f"an extraction of {model} that runs", 120)
        return found[0]

    def processes(self, job: Record) -> list[int]:
        """Return the processes `vitfeat extract` of a job."""
        ids = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:  # It has just ended.
                continue
            ours = f"SLURM_JOB_ID={job['JobId']}".encode() in environment
            folder = str(self.folder).encode() in b" ".join(command)
            if ours and folder and command[1:4] == [b"-m", b"vitfeat", b"extract"]:
                ids.append(int(process.name))
        return ids


@pytest.fixture(scope="module")
def runs(root: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(root, tmp_path_factory.mktemp("runs"), cluster)
    yield runs
    for run in runs.started:
        run.kill()
        run.communicate()


@pytest.fixture(scope="module", autouse=True)
def main_job(runs: Runs) -> str:
    """Run the main job of two models; give what it said."""
    run = runs.start(["demo-dino", "demo-mae"], str(runs.results / "cka/all.png"))
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0, said
    return said


def states(jobs: list[Record]) -> list[str]:
    return [job["JobState"] for job in jobs]


def test_every_job_of_the_main_job_was_slurms_and_asked_for_what_a_node_has(runs: Runs) -> None:
    assert (runs.results / "cka/all.png").stat().st_size > 10_000
    jobs = runs.cluster.jobs()
    assert set(states(jobs)) == {"COMPLETED"}
    for name, count in (("extract", 2), ("gram-demo", 2), ("index", 1), ("cka", 1), ("figures", 1)):
        assert len(runs.cluster.records(f"rule_{name}")) == count, jobs
    for job in jobs:
        assert int(job["NumCPUs"]) <= CPUS
        assert int(job["MinMemoryNode"].removesuffix("M")) <= MEMORY_MB
        # SLURM's own log of it, where the profile says.
        assert Path(job["StdOut"]).is_relative_to(runs.folder / "results/logs/slurm")
        assert Path(job["StdOut"]).is_file()


def test_jobs_that_share_a_submission_run_in_it_within_its_limits(runs: Runs) -> None:
    (pairs,) = runs.cluster.records("rule_cka")
    assert len(list((runs.results / "cka/digits/cls").glob("*.csv"))) == 3
    # Memory lets two of them run at once: no more was asked for, which the step would be refused.
    assert pairs["NumCPUs"] == "2"
    # One process runs them, not one behind the other in a step each.
    assert Path(pairs["StdOut"]).read_text().count("Provided cores:") == 1
    assert int(pairs["MinMemoryNode"].removesuffix("M")) <= MEMORY_MB


def test_extractions_and_gram_matrices_had_a_gpu_each_and_nothing_else_had_one(
    runs: Runs,
) -> None:
    had = runs.cluster.allotments()
    wanted = [*runs.cluster.records("rule_extract"), *runs.cluster.records("rule_gram")]
    assert sorted(one.job for one in had) == sorted(job["JobId"] for job in wanted)
    # The nodes have one GPU each, of index 0.
    assert {one.gpu for one in had} == {"0"}
    assert {one.node for one in had} == set(NODES)
    for a, b in combinations(had, 2):
        assert a.node != b.node or a.end <= b.start or b.end <= a.start, (a, b)


def test_two_extractions_ran_at_once_on_two_nodes(runs: Runs) -> None:
    jobs = {job["JobId"] for job in runs.cluster.records("rule_extract")[:2]}
    a, b = (one for one in runs.cluster.allotments() if one.job in jobs)
    assert {a.node, b.node} == set(NODES)
    assert max(a.start, b.start) < min(a.end, b.end)
    for model in ("demo-dino", "demo-mae"):
        # The job saw the one GPU that SLURM gave it.
        log = runs.results / f"logs/extract/digits/{model}.log"
        assert "GPU 0, of 1 GPU to choose from" in log.read_text()


def test_a_cancelled_extraction_alone_is_run_again(runs: Runs) -> None:
    models = ["demo-clip", "demo-moco"]
    stores = [runs.store(model) for model in models]
    run = runs.start(models, *stores, "--retries", "0")
    job = runs.running("demo-clip")
    runs.cluster.call("scancel", job["JobId"])
    said, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "CANCELLED" in said
    assert states(runs.extractions("demo-clip")) == ["CANCELLED"]
    # The other one is whole, since the profile keeps going.
    assert states(runs.extractions("demo-moco")) == ["COMPLETED"]
    assert [Path(store).exists() for store in stores] == [False, True]
    before = len(runs.cluster.jobs())
    run = runs.start(models, *stores)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert [job["Comment"] for job in runs.cluster.jobs()[before:]] == [
        "rule_extract_wildcards_digits_demo-clip"
    ]
    assert Path(stores[0]).exists()


def test_a_killed_job_and_one_whose_node_went_down_are_tried_again(runs: Runs) -> None:
    models = ["demo-beit", "demo-supervised"]
    stores = [runs.store(model) for model in models]
    run = runs.start(models, *stores, "--retries", "1")
    killed, lost = runs.running("demo-beit"), runs.running("demo-supervised")
    for process in runs.processes(killed):
        os.kill(process, signal.SIGKILL)
    node = lost["NodeList"]
    runs.cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    until(lambda: runs.cluster.node_state(node).startswith("DOWN"), "a node that is down")
    until(lambda: len(runs.extractions("demo-beit")) == 2, "a second try of the killed job")
    runs.cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    said, _ = run.communicate(timeout=180)
    assert run.returncode == 0, said
    assert all(Path(store).exists() for store in stores)
    first, second = runs.extractions("demo-beit")
    assert states([first, second]) == ["FAILED", "COMPLETED"]
    for key in ("MinMemoryNode", "TimeLimit"):
        assert first[key] != second[key], "a retry asks for more"
    # SLURM itself puts the job of a lost node back into the queue: the same job, begun once more.
    (again,) = runs.extractions("demo-supervised")
    assert (again["JobState"], again["Restarts"]) == ("COMPLETED", "1")
