"""Weights from a model hub to the store, through the workflow and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save

import vitfeat
from tests.models.shrunk import stir
from tests.weights.weights_server import Repository, serving, sha256
from tests.workflow.harness import Workflow
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone

COMMIT = "c" * 40
ENTRY: dict[str, Any] = {
    "source": "timm",
    "name": "vit_tiny_patch16_224",
    "args": {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8},
    "image_size": 32,
    "normalisation": "half",
}


@pytest.fixture(scope="module")
def published() -> bytes:
    """A weight file that no seed gives."""
    backbone = load_backbone(ModelEntry.from_mapping("tiny", ENTRY))
    stir(backbone.module, seed=5)
    return save(backbone.module.state_dict())


@pytest.fixture
def hub(root: Path, tmp_path: Path, published: bytes) -> Iterator[Workflow]:
    """A workflow with one model whose weights are on a hub of this machine."""
    config = {
        "models": ["tiny"],
        "catalog": {"tiny": {**ENTRY, "weights": "owner/tiny"}},
        "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 20}},
        # Words that a shell would take apart.
        "weights": str(tmp_path / "my weights"),
    }
    with serving() as server:
        server.repositories["owner/tiny"] = Repository(
            {COMMIT: {"model.safetensors": published}}, {"main": COMMIT}
        )
        environment = {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
        }
        yield Workflow(root, tmp_path, {**config, "extraction": {"taps": ["cls"]}}, environment)


def test_weights_are_fetched_once_and_the_store_says_which(hub: Workflow, published: bytes) -> None:
    done = hub.run()
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((hub.folder / "my weights/tiny.json").read_text("utf-8"))
    assert (record["repository"], record["revision"]) == ("owner/tiny", COMMIT)
    store = vitfeat.open(hub.results / "features/digits/tiny.zarr")
    assert store.attributes["weights"] == {
        "file": "model.safetensors",
        "repository": "owner/tiny",
        "revision": COMMIT,
        "sha256": sha256(published),
    }
    log = (hub.results / "logs/extract/digits.log").read_text("utf-8")
    assert "tiny: 30 tensors under timm's names, 0 renamed" in log
    assert hub.planned() == {}

    # A node without internet extracts anew from what was fetched.
    shutil.rmtree(hub.results / "features")
    hub.environment |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = hub.run()
    assert again.returncode == 0, again.stdout + again.stderr


def test_without_the_network_one_line_says_where_the_file_belongs(
    hub: Workflow, published: bytes
) -> None:
    hub.environment["HF_HUB_OFFLINE"] = "1"
    failed = hub.run()
    assert failed.returncode != 0
    place = hub.folder / "my weights/tiny/model.safetensors"
    line = next(n for n in failed.stderr.splitlines() if n.startswith("vitfeat: error: "))
    assert "model tiny: its weights (repository owner/tiny" in line
    assert str(place) in line

    place.parent.mkdir(parents=True)
    place.write_bytes(published)
    done = hub.run()
    assert done.returncode == 0, done.stdout + done.stderr
    store = vitfeat.open(hub.results / "features/digits/tiny.zarr")
    assert store.attributes["weights"]["sha256"] == sha256(published)
    assert "revision" not in store.attributes["weights"]


def _vitfeat(hub: Workflow, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitfeat", *arguments, "--weights-folder", "w"]
    environment = {**os.environ, **hub.environment}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=hub.folder, env=environment, check=False
    )


def test_the_command_fetches(hub: Workflow) -> None:
    fields = json.dumps({**ENTRY, "weights": "owner/tiny"})
    done = _vitfeat(hub, "fetch", "tiny", "--entry", fields)
    assert done.returncode == 0, done.stderr
    assert f"tiny: owner/tiny at {COMMIT[:12]}, model.safetensors, " in done.stdout
    assert (hub.folder / "w/tiny.json").is_file()

    both = _vitfeat(hub, "fetch", "tiny", "other", "--entry", fields)
    assert both.returncode == 1
    assert both.stderr.startswith("vitfeat: error: --entry: is one model's")
    assert _vitfeat(hub, "fetch", "demo-dino").stdout == "demo-dino: nothing to fetch\n"

    # Models of a config's own are fetched by its word.
    config = hub.folder / "my.yaml"
    config.write_text(yaml.safe_dump({**hub.config, "models": ["tiny", "demo-dino"]}))
    done = _vitfeat(hub, "fetch", "--configfile", str(config))
    assert done.stdout.startswith(f"tiny: owner/tiny at {COMMIT[:12]}, ")
    assert done.stdout.endswith("demo-dino: nothing to fetch\n")
    config.write_text("models: tiny")
    assert "no config of vitfeat" in _vitfeat(hub, "fetch", "--configfile", str(config)).stderr
    assert "no model to fetch" in _vitfeat(hub, "fetch").stderr
    strange = _vitfeat(hub, "fetch", "../tiny", "--entry", fields)
    assert "found '../tiny'; allowed: letters" in strange.stderr

    missing = _vitfeat(hub, "fetch", "dino-b16")
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "timm/vit_base_patch16_224.dino" in missing.stderr


def test_the_list_says_what_is_on_this_machine(hub: Workflow) -> None:
    place = hub.folder / "w/moco-s16/vit-s-300ep.pth.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    (hub.folder / "w/mae-b16.json").write_text("{")
    listed = _vitfeat(hub, "models").stdout
    rows = {line.split()[0]: line.split() for line in listed.splitlines()}
    assert rows["dino-b16"][1:4] == ["dino", "B/16@224", "timm"]
    assert rows["dino-b16"][-1] == "absent"
    assert rows["demo-dino"][-2:] == ["built", "in"]
    assert rows["random-b16"][-1] == "untrained"
    assert rows["moco-s16"][-1] == "present"
    assert rows["mae-b16"][-2:] == ["damaged", "record"]
