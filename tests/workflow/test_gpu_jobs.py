"""Which jobs ask for a GPU, and how many of them run at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.harness import MINI, Workflow, changed

GPU_RULES = {"extract", "attention_maps", "gram", "residual", "knn", "linear_probe"}
CONFIG = {
    **MINI,
    "datasets": {
        **MINI["datasets"],
        "digits-train": {"layout": "digits", "split": "train", "limit": 40},
    },
    "analyses": {
        **MINI["analyses"],
        "residual": {"datasets": ["digits"]},
        "knn": {"datasets": ["digits"], "train": {"digits": "digits-train"}},
        "linear_probe": {"datasets": ["digits"], "train": {"digits": "digits-train"}},
        "attention_maps": {"datasets": ["digits"]},
        "clustering": {"datasets": ["digits"]},
    },
}


@pytest.fixture(scope="module")
def workflow(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return Workflow(root, tmp_path_factory.mktemp("gpu"), CONFIG)


def needs(workflow: Workflow, *arguments: str) -> dict[str, dict[str, int]]:
    """Return what the jobs of each rule ask for: threads and the resources that are numbers."""
    done = workflow.run("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    rules: dict[str, dict[str, int]] = {}
    for text in re.split(r"^ *(?:local)?rule ", done.stdout, flags=re.M)[1:]:
        if (rule := text.partition(":")[0].removesuffix("_of_all")) == "all":
            continue  # It runs nothing.
        rules[rule] = {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)(?=,|$)", text, re.M)}
        threads = re.search(r"^ +threads: (\d+)$", text, re.M)
        rules[rule]["threads"] = int(threads[1]) if threads else 1
    return rules


def with_gpu(workflow: Workflow, *arguments: str) -> set[str]:
    asked = needs(workflow, *arguments)
    assert all(need.get("gpu", 1) == 1 for need in asked.values())
    return {rule for rule, need in asked.items() if "gpu" in need}


@pytest.mark.parametrize(
    ("device", "arguments", "some"),
    [
        ("auto", (), False),
        ("auto", ("--resources", "gpu=4"), True),
        ("auto", ("--resources", "gpu=0"), False),
        ("cuda", (), True),
        ("cuda:1", ("--resources", "gpu=4"), True),
        ("cpu", ("--resources", "gpu=4"), False),
    ],
)
def test_jobs_that_use_a_gpu_ask_for_one_where_there_are_some(
    workflow: Workflow, device: str, arguments: tuple[str, ...], some: bool
) -> None:
    asked = with_gpu(changed(workflow, "extraction", "device", device), *arguments)
    assert asked == (GPU_RULES if some else set())


def test_norms_of_residual_connections_alone_need_no_gpu(workflow: Workflow) -> None:
    config = changed(workflow, "analyses", "residual", "tokens", [])
    assert with_gpu(config, "--resources", "gpu=1") == GPU_RULES - {"residual"}


def test_no_job_asks_for_more_than_the_slurm_profile_says_that_a_node_has(
    root: Path, tmp_path: Path
) -> None:
    # Models of which a job takes 8 threads, and much memory; nothing is known of the data yet.
    config: dict[str, Any] = {
        "models": ["supervised-b16", "dino-b8"],
        "datasets": {"photos": {"layout": "folder", "root": "photos"}},
        "analyses": {"cka": {"datasets": ["photos"]}, "clustering": {"datasets": ["photos"]}},
    }
    profile = ("--profile", str(root / "workflow/profiles/slurm"))
    free = needs(Workflow(root, tmp_path, config, cores=16))
    assert max(need["mem_mb"] for need in free.values()) > 60_000
    assert max(need["threads"] for need in free.values()) == 8
    workflow = Workflow(root, tmp_path, config, cores=None)
    asked = needs(workflow, *profile)
    assert asked.keys() == free.keys()
    assert {rule for rule, need in asked.items() if "gpu" in need} == {"extract", "gram"}
    for key, most in (("mem_mb", 60_000), ("runtime", 1440), ("threads", 8)):
        assert max(need[key] for need in asked.values()) == most, key
    limits = ("--max-threads", "4", "--resources", "mem_mb=16000", "runtime=120", "gpu=1")
    for need in needs(workflow, *profile, *limits).values():
        assert need["mem_mb"] <= 16_000
        assert need["runtime"] <= 120
        assert need["threads"] <= 4


def test_one_machine_runs_as_many_jobs_with_a_gpu_as_it_has_and_each_has_its_own(
    root: Path, tmp_path: Path
) -> None:
    # A stand-in for the driver's tool: whatever uses a GPU claims that which it lists.
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-{tmp_path.name})'\n")
    tool.chmod(0o755)
    workflow = Workflow(root, tmp_path, {**MINI, "extraction": {"together": False}})
    workflow.environment["PATH"] = f"{tool.parent}:/usr/bin:/bin"
    stores = [str(workflow.results / f"features/digits/{model}.json") for model in MINI["models"]]
    done = workflow.run(*stores, "--resources", "gpu=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for model in MINI["models"]:
        log = (workflow.results / f"logs/extract/digits/{model}.log").read_text()
        assert f"GPU GPU-{tmp_path.name}, of 1 GPU to choose from" in log
        # Snakemake starts the second behind the first: it never had to wait for the claim.
        assert "waiting" not in log
