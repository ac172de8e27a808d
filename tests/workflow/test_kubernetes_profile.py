"""Jobs as pods of Kubernetes, with a stand-in for kubectl, which runs what a pod would run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.harness import MINI, Workflow

# A cluster of one node that never forgets a job.
KUBECTL = f"""#!{sys.executable}
import json, os, subprocess, sys
from pathlib import Path

folder = Path(os.environ["KUBECTL_STAND_IN"])
if sys.argv[1] == "create":
    job = json.load(sys.stdin)
    number = len([*folder.glob("*.json")])
    (folder / f"{{number}}.json").write_text(json.dumps(job))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {{"PATH": "/usr/bin:/bin", **{{e["name"]: e["value"] for e in container["env"]}}}}
    done = subprocess.run(
        container["command"], cwd=container["workingDir"], env=environment, capture_output=True
    )
    (folder / f"{{number}}.state").write_text("Failed" if done.returncode else "Complete")
    print(f"job.batch/{{job['metadata']['generateName']}}{{number}}")
else:
    state = folder / f"{{sys.argv[2].rpartition('-')[2]}}.state"
    if not state.exists():
        sys.exit('Error from server (NotFound): jobs.batch "x" not found')
    print("FailureTarget" * (state.read_text() == "Failed"), state.read_text())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in keeps the jobs that it was given."""
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setenv("KUBECTL_STAND_IN", str(folder))
    return folder


def _said(script: Path, *arguments: str | Path) -> str:
    done = subprocess.run([script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _job(folder: Path, number: int) -> dict[str, Any]:
    return json.loads((folder / f"{number}.json").read_text())


@pytest.mark.parametrize(("status", "word"), [(0, "success"), (3, "failed")])
def test_a_job_script_becomes_a_pod_that_has_what_the_job_needs(
    root: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    word: str,
) -> None:
    profile = root / "workflow/profiles/kubernetes"
    properties = {
        "rule": "gram_of_all",
        "threads": 4,
        "resources": {"mem_mb": 2500, "runtime": 90, "gpu": 1},
    }
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\nexit {status}\n")
    monkeypatch.setenv("VITFEAT_LIMITS", '{"gpu": 1}')
    monkeypatch.chdir(tmp_path)
    name = _said(profile / "submit.py", "images/vitfeat:1", "photos", "/data", "job.sh")
    assert name == "job.batch/vitfeat-gram-of-all-0"
    spec = _job(folder, 0)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 5400)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "images/vitfeat:1"
    assert container["command"] == ["sh", str(script)]
    assert container["workingDir"] == str(tmp_path)
    assert {"name": "VITFEAT_LIMITS", "value": '{"gpu": 1}'} in container["env"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "2500M"},
        "limits": {"memory": "2500M", "nvidia.com/gpu": "1"},
    }
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["shared"] == "/data"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "photos"}
    assert _said(profile / "status.py", name) == word


def test_a_job_that_was_deleted_has_failed_and_one_that_waits_is_running(
    root: Path, folder: Path
) -> None:
    status = root / "workflow/profiles/kubernetes/status.py"
    assert _said(status, "job.batch/vitfeat-index-7") == "failed"
    (folder / "7.state").write_text("")
    assert _said(status, "job.batch/vitfeat-index-7") == "running"


def test_pods_run_the_same_rules(root: Path, folder: Path, tmp_path: Path) -> None:
    profile = root / "workflow/profiles/kubernetes"
    command = yaml.safe_load((profile / "config.yaml").read_text())["cluster-generic-submit-cmd"]
    workflow = Workflow(root, tmp_path, {**MINI, "models": ["demo-dino"]}, cores=None)
    done = workflow.run(
        str(workflow.results / "features/digits/demo-dino.json"),
        *("--profile", str(profile), "--seconds-between-status-checks", "1"),
        # The profile's are of a run in the project's folder.
        *("--cluster-generic-submit-cmd", f"{root}/{command}"),
        *("--cluster-generic-status-cmd", str(profile / "status.py")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [_job(folder, number) for number in range(3)]
    names = [job["metadata"]["generateName"] for job in jobs]
    assert names == ["vitfeat-demo-data-", "vitfeat-index-", "vitfeat-small-"]
    (container,) = jobs[2]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
