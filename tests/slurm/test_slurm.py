"""The workflow on a real SLURM, held to SLURM's own records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm.cluster import CPUS, NODES, Cluster, Record, until
from tests.store.filled import files
from vitfeat.cli import main

#: What jobs may ask for.
MEMORY_MB = 2_600

#: Jobs that share the extraction of a model.
JOBS = 3

pytestmark = pytest.mark.slurm

CONFIG: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    # Three blocks: one for each job.
    "datasets": {"digits": {"layout": "digits", "split": "train"}},
    "extraction": {"jobs": JOBS},
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

    def parts(self, model: str) -> list[Record]:
        """Return SLURM's records of the jobs that share a model's extraction, as submitted."""
        return self.cluster.records(f"rule_extract_part_wildcards_digits_{model}")

    def part(self, model: str, number: int) -> list[Record]:
        """Return those of one of them: its tries."""
        return [job for job in self.parts(model) if job["Comment"].endswith(f"_{number}_{JOBS}")]

    def log(self, model: str, number: int) -> str:
        folder = self.results / f"logs/extract/digits/{model}.parts"
        return (folder / f"{number}-of-{JOBS}.log").read_text("utf-8")

    def stopped(self, model: str, count: int) -> list[Record]:
        """Let some jobs come as far as having claimed their blocks; there they stand still."""
        there: dict[str, Record] = {}

        def is_enough() -> bool:
            for job in self.parts(model):
                # Two may have come as far since the last look.
                if len(there) == count:
                    break
                if self.has_claimed(model, job) and job["JobId"] not in there:
                    for process in self.processes(job):
                        os.kill(process, signal.SIGSTOP)
                        there[job["JobId"]] = job
            return len(there) == count

        until(is_enough, f"{count} jobs at work on {model}", 120, pause=0.05)
        return list(there.values())

    def has_claimed(self, model: str, job: Record) -> bool:
        claims = self.results.glob(f"features/digits/{model}.zarr.partial/.progress/*.claim")
        return any(claim.read_text().endswith(f", job {job['JobId']}") for claim in claims)

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


@pytest.fixture(scope="module")
def by_one_job(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Extract a model by one job, without Snakemake and SLURM."""
    folder = tmp_path_factory.mktemp("one")

    def extract(model: str) -> Path:
        out = folder / f"{model}.zarr"
        index, images = runs.results / "datasets/digits.csv", runs.results / "demo/digits"
        command = ["extract", model, "--index", str(index), "--root", str(images)]
        assert main([*command, "--out", str(out), "--taps", "cls", "--threads", "1"]) == 0
        return out

    return extract


def assert_same_bytes(runs: Runs, model: str, whole: Path) -> None:
    store = Path(runs.store(model))
    assert files(store.with_suffix(".zarr")) == files(whole)
    assert store.read_bytes() == whole.with_suffix(".json").read_bytes()
    left = [path.name for path in store.parent.glob(f"{model}.*")]
    assert sorted(left) == [f"{model}.json", f"{model}.zarr"]


def states(jobs: list[Record]) -> list[str]:
    return [job["JobState"] for job in jobs]


def test_every_job_of_the_main_job_was_slurms_and_asked_for_what_a_node_has(runs: Runs) -> None:
    assert (runs.results / "cka/all.png").stat().st_size > 10_000
    jobs = runs.cluster.jobs()
    assert set(states(jobs)) == {"COMPLETED"}
    counts = {
        "extract_part": 2 * JOBS,
        # Those that seal.
        "extract_wildcards": 2,
        "index": 1,
        # Gram matrices of both models, and their pairs behind them.
        "small": 1,
        "figures": 1,
    }
    for name, count in counts.items():
        assert len(runs.cluster.records(f"rule_{name}")) == count, jobs
    for job in jobs:
        assert int(job["NumCPUs"]) <= CPUS
        assert int(job["MinMemoryNode"].removesuffix("M")) <= MEMORY_MB
        # SLURM's own log of it, where the profile says.
        assert Path(job["StdOut"]).is_relative_to(runs.folder / "results/logs/slurm")
        assert Path(job["StdOut"]).is_file()


def test_jobs_that_share_a_submission_run_in_it_within_its_limits(runs: Runs) -> None:
    (shared,) = runs.cluster.records("rule_small")
    assert len(list((runs.results / "cka/digits/cls").glob("*.csv"))) == 3
    # One runs behind the other: no more was asked for than the larger one needs.
    assert shared["NumCPUs"] == "2"
    # One process runs them, not a step each.
    assert Path(shared["StdOut"]).read_text().count("Provided cores:") == 1
    assert int(shared["MinMemoryNode"].removesuffix("M")) <= MEMORY_MB


def test_extractions_and_gram_matrices_had_a_gpu_each_and_nothing_else_had_one(
    runs: Runs,
) -> None:
    had = runs.cluster.allotments()
    wanted = [*runs.cluster.records("rule_extract_part"), *runs.cluster.records("rule_small")]
    jobs = {job["JobId"]: job for job in wanted}
    assert sorted(one.job for one in had) == sorted(jobs)
    for one in had:
        # What the nodes wrote down is what the controller has.
        assert jobs[one.job]["NodeList"] == one.node
        what = jobs[one.job]["Comment"]
        # For `pytest -s`.
        print(f"{what}: job {one.job}, node {one.node}, GPU {one.gpu}")  # noqa: T201
    # The nodes have one GPU each, of index 0.
    assert {one.gpu for one in had} == {"0"}
    assert {one.node for one in had} == set(NODES)
    for a, b in combinations(had, 2):
        assert a.node != b.node or a.end <= b.start or b.end <= a.start, (a, b)


def test_two_extractions_ran_at_once_on_two_nodes(runs: Runs) -> None:
    jobs = {job["JobId"] for job in runs.cluster.records("rule_extract_part")[:2]}
    a, b = (one for one in runs.cluster.allotments() if one.job in jobs)
    assert {a.node, b.node} == set(NODES)
    assert max(a.start, b.start) < min(a.end, b.end)


@pytest.mark.parametrize("model", CONFIG["models"])
def test_stores_by_three_jobs_have_the_bytes_of_one_by_one(
    runs: Runs, by_one_job: Callable[[str], Path], model: str
) -> None:
    for number in range(1, JOBS + 1):
        log = runs.log(model, number)
        # Each job saw the one GPU that SLURM gave it, and did its own share.
        assert "GPU 0, of 1 GPU to choose from" in log
        assert f"job {number} of {JOBS}: blocks {number - 1} to {number - 1} of {JOBS}" in log
    assert_same_bytes(runs, model, by_one_job(model))


def test_a_cancelled_job_alone_is_run_again(runs: Runs, by_one_job: Callable[[str], Path]) -> None:
    model = "demo-clip"
    run = runs.start([model], runs.store(model), "--retries", "0")
    (job,) = runs.stopped(model, 1)
    runs.cluster.call("scancel", job["JobId"])
    said, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "CANCELLED" in said
    # The others were run to their ends, since the profile keeps going.
    assert sorted(states(runs.parts(model))) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert not Path(runs.store(model)).exists()
    before = len(runs.cluster.jobs())
    run = runs.start([model], runs.store(model))
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert [job["Comment"] for job in runs.cluster.jobs()[before:]] == [
        job["Comment"],
        f"rule_extract_wildcards_digits_{model}",
    ]
    assert_same_bytes(runs, model, by_one_job(model))


def test_a_killed_job_and_one_whose_node_went_down_are_tried_again(
    runs: Runs, by_one_job: Callable[[str], Path]
) -> None:
    model = "demo-moco"
    run = runs.start([model], runs.store(model), "--retries", "1")
    killed, lost = runs.stopped(model, 2)
    node = lost["NodeList"]
    assert {node, killed["NodeList"]} == set(NODES)
    for process in runs.processes(killed):
        os.kill(process, signal.SIGKILL)
    runs.cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    until(lambda: runs.cluster.node_state(node).startswith("DOWN"), "a node that is down")
    for process in runs.processes(lost):
        os.kill(process, signal.SIGKILL)
    numbers = [int(job["Comment"].split("_")[-2]) for job in (killed, lost)]
    until(lambda: len(runs.part(model, numbers[0])) == 2, "a second try of the killed job")
    runs.cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    said, _ = run.communicate(timeout=180)
    assert run.returncode == 0, said
    first, second = runs.part(model, numbers[0])
    assert states([first, second]) == ["FAILED", "COMPLETED"]
    for key in ("MinMemoryNode", "TimeLimit"):
        assert first[key] != second[key], "a retry asks for more"
    # SLURM itself puts the job of a lost node back into the queue: the same job, begun once more.
    (again,) = runs.part(model, numbers[1])
    assert (again["JobState"], again["Restarts"]) == ("COMPLETED", "1")
    assert_same_bytes(runs, model, by_one_job(model))
