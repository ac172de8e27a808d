"""A GPU for every process, on GPUs that a stand-in for nvidia-smi lists."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vitfeat.cli import main
from vitfeat.gpus import own_gpu, visible_gpus

# Claims a GPU, says what CUDA is shown and what PyTorch is told, and holds it until its input ends.
JOB = """
import logging, os, sys
from vitfeat.gpus import own_gpu
logging.basicConfig(level="INFO", format="%(message)s")
with own_gpu(sys.argv[1]) as device:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), device, flush=True)
    sys.stdin.read()
"""
MIG = """\
GPU 0: NVIDIA H200 (UUID: GPU-0-{salt})
  MIG 3g.71gb     Device  0: (UUID: MIG-a-{salt})
  MIG 3g.71gb     Device  1: (UUID: MIG-b-{salt})
GPU 1: NVIDIA H200 (UUID: GPU-1-{salt})
"""
Start = Callable[..., "subprocess.Popen[str]"]


def listing(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make nvidia-smi list GPUs, whose names no other test has: claims are the machine's."""
    tool = folder / "nvidia-smi"
    salt = f"{os.getpid()}{folder.name}"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text.format(salt=salt)}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines = "".join(f"GPU {n}: NVIDIA H200 (UUID: GPU-{n}-{{salt}})\n" for n in range(2))
    listing(tmp_path, monkeypatch, lines)
    return [gpu.name for gpu in visible_gpus()]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    jobs: list[subprocess.Popen[str]] = []

    def start(device: str = "auto", **environment: str) -> subprocess.Popen[str]:
        said = (tmp_path / f"said-{len(jobs)}").open("w+")
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **environment},
        )
        jobs.append(job)
        return job

    yield start  # type: ignore[misc]
    for job in jobs:
        job.kill()
        job.communicate()


def shown(job: subprocess.Popen[str]) -> list[str]:
    assert job.stdout is not None
    return job.stdout.readline().split()


def waits(job: subprocess.Popen[str], folder: Path, number: int) -> bool:
    """Whether a job has said that it waits."""
    said = folder / f"said-{number}"
    while job.poll() is None:
        time.sleep(0.02)
        if "waiting" in said.read_text():
            return True
        if "to choose from" in said.read_text():
            return False
    raise AssertionError(said.read_text())


def test_jobs_side_by_side_have_a_gpu_each_and_a_third_waits_until_one_is_killed(
    two_gpus: list[str], start: Start, tmp_path: Path
) -> None:
    first, second = start(), start()
    given = [shown(first)[0], shown(second)[0]]
    assert sorted(given) == two_gpus
    third = start()
    assert waits(third, tmp_path, 2)
    first.send_signal(signal.SIGKILL)
    assert shown(third) == [given[0], "auto"]


def test_a_job_that_ends_gives_its_gpu_back(two_gpus: list[str], start: Start) -> None:
    for _ in range(3):
        with own_gpu("cuda") as device:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == two_gpus[0]
            # The only one that PyTorch sees.
            assert device == "cuda"
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_gpu_that_is_named_is_waited_for_though_another_is_free(
    two_gpus: list[str], start: Start, tmp_path: Path
) -> None:
    first, second = start("cuda:1"), start("cuda:1")
    taken, other = (first, second) if not waits(first, tmp_path, 0) else (second, first)
    assert shown(taken) == [two_gpus[1], "cuda"]
    assert waits(other, tmp_path, 1 if other is second else 0)
    taken.kill()
    assert shown(other) == [two_gpus[1], "cuda"]


def test_a_choice_of_gpus_from_outside_is_kept(
    two_gpus: list[str], start: Start, tmp_path: Path
) -> None:
    # The same GPU by its number, by its UUID, and by the beginning of it.
    one = start(CUDA_VISIBLE_DEVICES="1")
    assert shown(one) == ["1", "auto"]
    for number, entry in ((1, two_gpus[1]), (2, two_gpus[1][:6])):
        assert waits(start(CUDA_VISIBLE_DEVICES=entry), tmp_path, number)
    # Those behind an entry that names nothing are not seen by CUDA either.
    assert shown(start(CUDA_VISIBLE_DEVICES="0,-1,1")) == ["0", "auto"]
    assert shown(start(CUDA_VISIBLE_DEVICES="-1")) == ["-1", "auto"]
    assert shown(start(CUDA_VISIBLE_DEVICES="")) == ["auto"]


def test_parts_of_a_gpu_are_taken_singly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(tmp_path, monkeypatch, MIG)
    assert [gpu.name.split("-")[1] for gpu in visible_gpus()] == ["a", "b", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,MIG-b")
    # CUDA takes the first part of a GPU that is named whole.
    assert [(gpu.entry, gpu.name[:5]) for gpu in visible_gpus()] == [
        ("0", "MIG-a"),
        ("MIG-b", "MIG-b"),
    ]


def test_what_slurm_gave_a_job_no_other_job_of_slurm_keeps_from_it(
    two_gpus: list[str], start: Start, tmp_path: Path
) -> None:
    # Within their control groups both see a GPU 0, which are two GPUs.
    first = start(SLURM_JOB_ID="11", CUDA_VISIBLE_DEVICES="0")
    second = start(SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0")
    assert shown(first) == shown(second) == ["0", "auto"]
    # Two processes of one job of SLURM share what it has.
    third = start(SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0")
    assert waits(third, tmp_path, 2)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1", "cpu"])
def test_without_gpus_nothing_changes(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # A driver that fails lists none either.
    listing(tmp_path, monkeypatch, "")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: X (UUID: GPU-x)'; exit 9\n")
    before = dict(os.environ)
    with own_gpu(device) as given:
        assert given == device
        assert dict(os.environ) == before
    assert caplog.messages == []


def test_a_command_says_in_its_log_which_gpu_is_its_own(
    two_gpus: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # It fails behind the claim: there is no store.
    words = ["run", "gram", "nowhere.zarr", "--tokens", "cls"]
    words += ["--out", str(tmp_path / "out"), "--log", str(log)]
    assert main(list(map(str, words))) == 1
    assert log.read_text().startswith(f"GPU {two_gpus[0]}, of 2 GPUs to choose from\n")
    assert main([*map(str, words), "--device", "cpu"]) == 1
    assert "GPU" not in log.read_text()
