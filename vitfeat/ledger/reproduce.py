"""A published number is run: what it needs, its config, Snakemake, the verdict."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitfeat.analyses.registry import analyses
from vitfeat.analyses.rows import read_scores
from vitfeat.config.parsing import parse_config
from vitfeat.doctor import look_at_config
from vitfeat.errors import AnalysisError, ConfigError, DataError
from vitfeat.files import replacing
from vitfeat.ledger.entries import Published
from vitfeat.new_study import workflow_home


def described(entry: Published) -> Iterator[str]:
    """Yield what a number is, a line each for people."""
    protocol = entry.protocol
    yield f"{entry.name}: {protocol.measured}, {entry.model}; {entry.state}"
    yield f"published  {entry.published}, within {protocol.tolerance} ({protocol.source})"
    yield f"source     {protocol.url}"
    yield f"protocol   {protocol.exactly}"
    yield f"read       {protocol.read}"
    for line in protocol.deviations:
        yield f"deviation  {line}"


def config_of(entry: Published, root: Path, results: Path, weights: Path) -> Mapping[str, Any]:
    """Return the config behind a number; all entries share a folder of results."""
    raw = entry.protocol.config
    # Embedded data has no folder of its own.
    where = {"root": str(root)} if entry.protocol.data else {}
    return {
        "results": str(results),
        "weights": str(weights),
        "models": [entry.model],
        "datasets": {name: {**dataset, **where} for name, dataset in raw["datasets"].items()},
        "extraction": {"layers": "last", **raw.get("extraction", {})},
        "analyses": raw["analyses"],
    }


def table_of(entry: Published, results: Path) -> Path:
    """Return the table that holds a number."""
    pattern = analyses()[entry.protocol.analysis].jobs[0].outputs["out"]
    return results / pattern.format(dataset=entry.protocol.dataset, model=entry.model)


def prepare(entry: Published, root: Path | None, results: Path, weights: Path) -> Iterator[str]:
    """Write a number's config; yield what it needs, where that is, and what of it is there.

    Raises
    ------
    ConfigError, DataError
        It cannot be run, or something is missing that the workflow does not fetch.
    """
    protocol = entry.protocol
    if entry.lacking:
        raise ConfigError(f"{entry.name} cannot be run: {entry.lacking}")
    root = root or Path(protocol.root)
    if protocol.data:
        shows = f"{protocol.page} shows what belongs there"
        yield f"needs      {protocol.data} in {root}; {shows}"
        if not root.is_dir():
            raise DataError(
                f"{entry.name} needs {protocol.data}, and {root} does not exist; {shows}; --data "
                "says where it is"
            )
    raw = config_of(entry, root, results, weights)
    for finding in look_at_config(parse_config(raw)):
        if finding.stops:
            raise DataError(f"{entry.name}: {finding.line.split(maxsplit=1)[1]}")
        yield finding.line
    path = _config_path(entry, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    yield f"config     {path}"


def _config_path(entry: Published, results: Path) -> Path:
    return results / "configs" / f"{entry.name}.yaml"


def run(entry: Published, results: Path, arguments: Sequence[str]) -> None:
    """Make the table of a number, with further arguments for Snakemake."""
    command = [
        *(sys.executable, "-m", "snakemake", str(table_of(entry, results))),
        *("--snakefile", str(workflow_home() / "Snakefile")),
        *("--configfile", str(_config_path(entry, results)), *arguments),
    ]
    if subprocess.run(command, check=False).returncode:
        raise AnalysisError(f"{entry.name}: Snakemake stopped, as it says above")


def verdict(entry: Published, results: Path) -> Iterator[str]:
    """Yield the published number, ours, and the difference.

    Raises
    ------
    AnalysisError
        The difference is beyond the tolerance.
    """
    protocol, table = entry.protocol, table_of(entry, results)
    rows = [
        row
        for row in read_scores(table)
        if (row.features, row.variant, row.score, row.group)
        == (protocol.features, protocol.variant, protocol.score, "")
    ]
    if not rows:
        raise AnalysisError(
            f"{entry.name}: {table} has no {protocol.score} of {protocol.features}: remove it and "
            "run this again"
        )
    ours = 100 * max(rows, key=lambda row: row.layer).value
    difference = ours - entry.published
    yield f"published  {entry.published}"
    yield f"ours       {ours:.2f}   ({table})"
    yield f"difference {difference:+.2f}, tolerance {protocol.tolerance}"
    for line in protocol.deviations:
        yield f"deviation  {line}"
    # Also where ours is NaN.
    if not abs(difference) <= protocol.tolerance:
        raise AnalysisError(
            f"{entry.name}: {ours:.2f} is not within {protocol.tolerance} of the published "
            f"{entry.published}; the deviations above may be why"
        )
    yield f"{entry.name} is reproduced"
