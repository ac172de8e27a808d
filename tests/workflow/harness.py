"""Real Snakemake runs on a miniature config."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MINI: dict[str, Any] = {
    "models": ["demo-dino", "demo-mae"],
    "datasets": {"digits": {"layout": "digits", "split": "test", "limit": 40}},
    "analyses": {"cka": {"datasets": ["digits"], "tokens": ["cls", "all"]}},
}


@dataclass
class Workflow:
    """A config in a folder of its own, and Snakemake on it."""

    root: Path
    folder: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({**self.config, "results": str(self.results)}))
        command = [
            *(sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--nolock"),
            # Last: it takes as many files as it is given, targets too.
            *("--snakefile", str(self.root / "Snakefile"), "--configfile", str(config)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=environment, check=False
        )

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans; empty when nothing is to be done."""
        done = self.run("--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout, re.M | re.S)
        if table is None:
            assert "Nothing to be done" in done.stdout + done.stderr
            return {}
        return {rule: int(n) for rule, n in (r.split() for r in table.group(1).splitlines())}

    def manifest(self, model: str) -> dict[str, Any]:
        return json.loads((self.results / f"features/digits/{model}.json").read_text("utf-8"))
