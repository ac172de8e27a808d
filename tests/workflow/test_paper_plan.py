"""The paper's config as Snakemake plans it, and what is said of data that is not there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.workflow.harness import Workflow, submissions

TARGET = re.compile(r"^\|[^|]*\| `(?P<path>[^`]+)` \|", re.M)


@pytest.fixture(scope="module")
def paper(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    config = yaml.safe_load((root / "configs/paper.yaml").read_text("utf-8"))
    return Workflow(root, tmp_path_factory.mktemp("paper"), config)


@pytest.fixture(scope="module")
def plan(paper: Workflow) -> subprocess.CompletedProcess[str]:
    # As on a cluster: its jobs are the same.
    done = paper.run("--dry-run", "--profile", str(paper.root / "workflow/profiles/slurm"))
    assert done.returncode == 0, done.stderr
    return done


def absences(said: str) -> list[str]:
    return [line for line in said.splitlines() if "does not exist yet" in line]


def test_every_target_that_the_page_names_is_planned(
    paper: Workflow, plan: subprocess.CompletedProcess[str], root: Path
) -> None:
    lines = [li for li in plan.stdout.splitlines() if li.strip().startswith("output: ")]
    planned = {path for li in lines for path in re.findall(r"[^\s,]+", li.partition(":")[2])}
    page = (root / "docs/paper.md").read_text("utf-8").partition("\n## Figures and tables\n")[2]
    targets = TARGET.findall(page.partition("\n## ")[0])
    assert len(targets) > 40
    for path in targets:
        for model in paper.config["models"] if "{model}" in path else [""]:
            named = Path(paper.results, path.format(model=model))
            # Of folders, whose files only the job knows, the folder is planned.
            assert {str(named), str(named.parent)} & planned, path


def test_a_cluster_gets_few_submissions_for_all_of_it(
    paper: Workflow, plan: subprocess.CompletedProcess[str]
) -> None:
    models, stores = len(paper.config["models"]), len(paper.config["datasets"])
    counts = submissions(plan.stdout)
    assert counts.total() <= 560
    assert counts["extract"] == models * stores
    # What is left is a few a model, and a few in all.
    for group in ("gram", "knn", "tables", "clustering", "video"):
        assert counts[group] == models, group
    assert counts["cka"] + counts["similarity"] + counts["figures"] <= 12


def test_pairs_are_a_job_a_model_and_gram_matrices_too(
    paper: Workflow, plan: subprocess.CompletedProcess[str]
) -> None:
    jobs = re.findall(r"^ *rule ((?:gram|cka|similarity)[^:]*):", plan.stdout, re.M)
    models = paper.config["models"]
    of_pairs = [f"{name}_{model}" for name in ("cka", "similarity") for model in models]
    figures = ["cka_figures", "similarity_figures"]
    assert sorted(jobs) == sorted([*(["gram"] * len(models)), *of_pairs, *figures])


def test_a_plan_says_which_folders_are_absent(
    paper: Workflow, plan: subprocess.CompletedProcess[str]
) -> None:
    said = absences(plan.stderr)
    assert len(said) == len(paper.config["datasets"])
    assert (
        "vitfeat: dataset roxford5k: data/roxford5k does not exist yet; docs/analyses/retrieval.md "
        "shows what belongs there"
    ) in said
    assert not absences(plan.stdout)


def test_a_run_says_it_once_and_the_index_fails(root: Path, tmp_path: Path) -> None:
    config = {
        "models": ["demo-dino"],
        "datasets": {
            "photos": {"layout": "folder", "root": "photos"},
            "digits": {"layout": "digits", "split": "test", "limit": 8},
            # Nothing asks for it.
            "unused": {"layout": "flat", "root": "nowhere"},
        },
        "analyses": {"cka": {"datasets": ["photos", "digits"], "tokens": ["cls"]}},
    }
    workflow = Workflow(root, tmp_path, config)
    done = workflow.run(str(workflow.results / "datasets/photos.csv"))
    assert done.returncode != 0
    assert absences(done.stdout + done.stderr) == [
        "vitfeat: dataset photos: photos does not exist yet"
    ]
    assert "vitfeat: error: dataset photos" in done.stdout + done.stderr
    # As on a cluster, where the process of each job reads the workflow again.
    job = workflow.run(
        "--dry-run", "--mode", "remote", str(workflow.results / "datasets/photos.csv")
    )
    assert job.returncode == 0
    assert not absences(job.stdout + job.stderr)
    (tmp_path / "photos").mkdir()
    assert not absences(workflow.run("--dry-run").stderr)
