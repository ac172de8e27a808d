"""Commands: clusters of the features of annotated regions."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("regions", _regions, "score k-means of the regions of every layer of a store")
    sub.add_argument("store", type=Path)
    sub.add_argument("--regions", type=Path, required=True, help="the dataset's table of regions")
    sub.add_argument("--clusters", type=positive, help="default: as many as categories")
    sub.add_argument("--n-init", type=positive, default=10, help="initialisations of a k-means")
    sub.add_argument("--seeds", type=positive, default=3, help="k-means of a layer")
    sub.add_argument("--seed", type=count, default=0, help="seed of the first of them")
    sub.add_argument("--threads", type=positive, default=1, help="k-means side by side")
    sub.add_argument(
        "--max-mb", type=positive, default=2048, help="bound on the features in memory a thread"
    )
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")


def _regions(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.regions.job import write_regions
    from vitfeat.jobs.layer_clusters import Runs

    write_regions(
        options.store,
        options.regions,
        options.out,
        clusters=options.clusters,
        runs=Runs(
            n_init=options.n_init,
            seeds=options.seeds,
            seed=options.seed,
            threads=options.threads,
            max_bytes=options.threads * options.max_mb * 2**20,
        ),
        log=console.log,
    )
