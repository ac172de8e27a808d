"""Jobs of several extractions, several jobs that share one, and the one that seals the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.harness import MINI, Workflow, changed
from tests.workflow.test_gpu_jobs import needs


@pytest.fixture(scope="module")
def workflow(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    return Workflow(root, tmp_path_factory.mktemp("jobs"), MINI)


def _extractions(workflow: Workflow) -> dict[str, int]:
    planned = workflow.planned()
    return {rule: n for rule, n in planned.items() if rule.startswith("extract")}


def test_one_job_extracts_all_models_where_each_takes_seconds(workflow: Workflow) -> None:
    assert _extractions(workflow) == {"extract_of_all": 1}
    # So does auto, where one job is quick.
    assert _extractions(changed(workflow, "extraction", "jobs", "auto")) == {"extract_of_all": 1}


def test_a_job_a_model_where_the_config_wants_it(workflow: Workflow) -> None:
    apart = changed(workflow, "extraction", "together", False)
    assert _extractions(apart) == {"extract": 2}
    # What goes after use is made again for one model alone.
    assert _extractions(changed(workflow, "extraction", "keep", ["cls"])) == {"extract": 2}


def test_several_jobs_share_a_model_and_one_seals(workflow: Workflow) -> None:
    several = changed(workflow, "extraction", "jobs", 3)
    assert _extractions(several) == {"extract_part": 6, "extract_parts": 2, "extract": 2}


def test_auto_makes_jobs_of_hours(workflow: Workflow, tmp_path: Path) -> None:
    model = {"source": "timm", "name": "vit_large_patch16_224", "pretrained": False, "label": "L"}
    config = {
        "models": ["large"],
        "catalog": {"large": model},
        "datasets": {"photos": {"layout": "imagenet", "root": str(tmp_path), "split": "train"}},
        "extraction": {"jobs": "auto", "taps": ["cls"]},
    }
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "train" / "n01440764" / "a.JPEG").write_bytes(b"")
    large = Workflow(workflow.root, tmp_path, config)
    n = large.planned("--resources", "gpu=4")["extract_part"]
    # 1,281,167 x 1.23e11 / 5e12 s = 8.8 h, 26 h with what is for safety: 4 jobs of up to 8 hours.
    assert n == 4


def test_each_job_asks_for_a_gpu_and_its_share_of_time_and_the_last_for_none(
    workflow: Workflow,
) -> None:
    several = changed(workflow, "extraction", "jobs", 3)
    asked = needs(several, "--resources", "gpu=2")
    assert asked["extract_part"]["gpu"] == 1
    assert "gpu" not in asked["extract"]
    alone = needs(changed(workflow, "extraction", "together", False), "--resources", "gpu=2")
    assert alone["extract"]["gpu"] == 1
    assert asked["extract_part"]["mem_mb"] == alone["extract"]["mem_mb"]
    assert asked["extract_part"]["runtime"] <= alone["extract"]["runtime"]


@pytest.mark.parametrize("jobs", [0, -1, "many", 1.5])
def test_numbers_of_jobs_that_are_none(workflow: Workflow, jobs: object) -> None:
    done = changed(workflow, "extraction", "jobs", jobs).run("--dry-run")
    assert done.returncode != 0
    assert "extraction.jobs" in done.stderr


@pytest.mark.slow
def test_a_store_by_two_jobs_is_that_of_one(root: Path, tmp_path: Path) -> None:
    stores = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        settings = {"jobs": jobs, "together": False}
        config = {**MINI, "models": ["demo-dino"], "extraction": settings}
        run = Workflow(root, folder, config)
        done = run.run(str(run.results / "features/digits/demo-dino.json"))
        assert done.returncode == 0, done.stderr
        stores.append(run.results / "features/digits")
    one, two = (
        {p.relative_to(s): p.read_bytes() for p in s.rglob("*") if p.is_file()} for s in stores
    )
    assert one == two
    assert not (stores[1] / "demo-dino.parts").exists()
    # What is finished is finished, whatever number of jobs would make it today.
    for jobs in (1, 3):
        other = changed(run, "extraction", "jobs", jobs)
        assert other.planned(str(other.results / "features/digits/demo-dino.json")) == {}
