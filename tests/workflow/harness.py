"""Real Snakemake runs on a miniature config."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MINI: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 40}},
    "analyses": {"cka": {"datasets": ["digits"], "tokens": ["cls", "all"]}},
}


# Runs are many: each is a fork of a process that has imported Snakemake already.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["snakemake.cli", "snakemake.api", "vitfeat.config"])


def _snakemake(
    arguments: Sequence[str], folder: Path, environment: dict[str, str], said: Path
) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main(arguments)


def in_fork(
    line: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake and return what it said."""
    with tempfile.TemporaryDirectory() as temporary:
        said = Path(temporary)
        process = _FORKS.Process(target=_snakemake, args=(line, folder, environment, said))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            line,
            process.exitcode,
            (said / "stdout").read_text("utf-8"),
            (said / "stderr").read_text("utf-8"),
        )


@dataclass
class Workflow:
    """A config in a folder of its own, and Snakemake on it."""

    root: Path
    folder: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    #: None leaves it to a profile.
    cores: int | None = 2

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({**self.config, "results": str(self.results)}))
        line = [
            *(*arguments, "--nolock"),
            *(() if self.cores is None else ("--cores", str(self.cores))),
            # Last: it takes as many files as it is given, targets too.
            *("--snakefile", str(self.root / "Snakefile"), "--configfile", str(config)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        if "--dry-run" in arguments:
            # Every job with its files, in Snakemake's own words.
            line.insert(0, "--printshellcmds")
        return in_fork(line, self.folder, environment)

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans; empty when nothing is to be done."""
        done = self.run("--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout, re.M | re.S)
        if table is None:
            assert "Nothing to be done" in done.stdout + done.stderr
            return {}
        return {rule: int(n) for rule, n in (r.split() for r in table.group(1).splitlines())}

    def submitted(self, profile: str, *arguments: str) -> Counter[str]:
        """Return what a dry run would submit to a cluster: groups by their kind, and rules."""
        folder = self.root / "workflow/profiles" / profile
        done = self.run("--dry-run", "--profile", str(folder), *arguments)
        assert done.returncode == 0, done.stderr
        return submissions(done.stdout)

    def manifest(self, model: str) -> dict[str, Any]:
        return json.loads((self.results / f"features/digits/{model}.json").read_text("utf-8"))


def submissions(plan: str) -> Counter[str]:
    """Return what Snakemake's own words of a plan say is submitted."""
    groups = re.findall(r"^\[[^]]*\] Group job (\w+)", plan, re.M)
    # Jobs within a group are indented. Weights are fetched where Snakemake runs.
    alone = re.findall(r"^rule (?!all:|fetch_weights:)(\w+):", plan, re.M)
    return Counter([*groups, *alone])


def changed(workflow: Workflow, *path: Any) -> Workflow:
    """Return the same workflow with one setting of its config changed."""
    config = deepcopy(workflow.config)
    *keys, last, value = path
    node = config
    for key in keys:
        node = node.setdefault(key, {})
    node[last] = value
    return Workflow(workflow.root, workflow.folder, config)
