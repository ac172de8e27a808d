"""Commands: k-means of features against classes."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, layer, positive
from vitfeat.cli.figures import add_figures
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("cluster", _cluster, "score k-means of every layer of a store against classes")
    sub.add_argument("store", type=Path)
    sub.add_argument(
        "--features",
        nargs="+",
        default=["cls", "mean"],
        choices=["cls", "mean", "attention_mean"],
        help="CLS, mean of spatial tokens, head-averaged attention patterns",
    )
    sub.add_argument(
        "--pattern-layers",
        nargs="+",
        type=layer,
        default=["all"],
        help="layers of attention_mean, by name or number",
    )
    sub.add_argument("--clusters", type=positive, help="default: as many as classes")
    sub.add_argument("--n-init", type=positive, default=10, help="initialisations of a k-means")
    sub.add_argument("--seeds", type=positive, default=3, help="k-means of a layer")
    sub.add_argument("--seed", type=count, default=0, help="seed of the first of them")
    sub.add_argument("--shuffled", action="store_true", help="score shuffled labels too")
    sub.add_argument("--threads", type=positive, default=1, help="k-means side by side")
    sub.add_argument(
        "--max-mb", type=positive, default=2048, help="bound on the features in memory a thread"
    )
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")

    add_figures(command, "clustering", "{dataset}/{model}.csv")


def _cluster(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.clustering.job import write_clustering

    write_clustering(
        options.store,
        options.out,
        features=options.features,
        pattern_layers=options.pattern_layers,
        clusters=options.clusters,
        n_init=options.n_init,
        seeds=options.seeds,
        seed=options.seed,
        shuffled_labels=options.shuffled,
        threads=options.threads,
        max_bytes=options.threads * options.max_mb * 2**20,
        log=console.log,
    )
