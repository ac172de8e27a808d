"""Whether this machine can run a config: versions, devices, disk, weights, datasets."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import NamedTuple

from packaging.requirements import Requirement

import vitfeat
from vitfeat.config.config import Config
from vitfeat.gpus import visible_gpus
from vitfeat.models.hub import fetch_command, weights_state
from vitfeat.plan.checks import check_start, foresee
from vitfeat.plan.disk import NOT_ENOUGH, disk_lines, free_bytes, known_sizes
from vitfeat.text import plural, size


class Finding(NamedTuple):
    """A line for people, and whether what it says stops jobs."""

    line: str
    stops: bool = False


def look_at_machine() -> Iterator[Finding]:
    """Yield what is installed, and what the machine has."""
    yield Finding(f"vitfeat    {vitfeat.__version__}, Python {platform.python_version()}")
    try:
        needed = [Requirement(text) for text in requires("vitfeat") or []]
    except PackageNotFoundError:
        how = "pip install --no-deps -e ."
        yield Finding(f"packages   vitfeat itself is not installed here: {how}", stops=True)
        return
    wrong = [f for r in needed if r.marker is None and (f := _fault(r))]
    for what, remedy in wrong:
        yield Finding(f"packages   {what}: pip install '{remedy}'", stops=True)
    if not wrong:
        yield Finding("packages   all that are needed")
    for extra in metadata("vitfeat").get_all("Provides-Extra") or []:
        of_it = [r for r in needed if r.marker and r.marker.evaluate({"extra": extra})]
        lacking = [fault[0] for r in of_it if (fault := _fault(r))]
        if extra != "dev" and lacking:
            how = f"pip install 'vitfeat[{extra}]'"
            yield Finding(f"optional   {extra}: {', '.join(lacking)}: {how}")
    yield from _gpus()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding(f"machine    {plural(os.cpu_count() or 1, 'core')}, memory {size(memory)}")


def _fault(requirement: Requirement) -> tuple[str, str] | None:
    """Return what is wrong with a package, and what pip is told to install."""
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        there = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing", wanted
    if requirement.specifier.contains(there, prereleases=True):
        return None
    return f"{requirement.name} is {there}, needed is {requirement.specifier}", wanted


def _gpus() -> Iterator[Finding]:
    if not (gpus := visible_gpus()):
        yield Finding("GPU        none: jobs run on the CPU")
        return
    import torch

    yield Finding(
        f"GPU        {plural(len(gpus), 'GPU')}; ask for them: snakemake --resources gpu=1"
    )
    if not torch.cuda.is_available():
        yield Finding(
            f"GPU        PyTorch {torch.__version__} cannot use them: install one that is built "
            "for this driver (`nvidia-smi` shows it)",
            stops=True,
        )


def look_at_config(config: Config) -> Iterator[Finding]:
    """Yield what a config needs of this machine: disk, weights, datasets, devices."""
    check_start(config, fetches=True, on_device=False)
    lines = disk_lines(config) or [
        f"disk: nothing to write; {size(free_bytes(config.results))} free"
    ]
    for line in lines:
        yield Finding(f"disk       {line.removeprefix('disk: ').strip()}", NOT_ENOUGH in line)
    for model in config.models:
        state, get = weights_state(model, config.weights), fetch_command(model, config.weights)
        how = f"; the workflow fetches them, or: {get}" if state == "absent" else ""
        yield Finding(f"weights    {model.id}: {state}{how}", stops=state == "damaged record")
    for name, facts in known_sizes(config).items():
        root = config.datasets[name].root
        yield Finding(f"dataset    {name}: {plural(facts.images, 'image')} at most, {root}")
    for line in config.remarks:
        yield Finding(f"remark     {line}")
    for line in foresee(config):
        yield Finding(f"stops      {line}", stops=True)
