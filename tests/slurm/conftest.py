"""The cluster, once for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, left_behind, running_cluster, until

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        pytest.fail(f"not installed: {', '.join(absent)}; `make test-slurm` installs them")
    if os.geteuid() != 0:
        pytest.fail("SLURM's daemons start the jobs of any user: run the tests as root")
    folder: Path = tmp_path_factory.mktemp("slurm")
    with running_cluster(folder) as cluster:
        yield cluster
    # Killed ones take a moment.
    until(lambda: not left_behind(folder), "the end of all that the cluster started", 10)
