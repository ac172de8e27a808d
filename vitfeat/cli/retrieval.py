"""Commands: retrieval of images of the same landmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, layer, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("retrieval", _retrieval, "score the ranking of a database in every layer")
    _add_inputs(sub)
    sub.add_argument(
        "--features",
        nargs="+",
        default=["cls", "mean"],
        choices=["cls", "mean"],
        help="CLS, mean of spatial tokens",
    )
    sub.add_argument(
        "--ranks", nargs="+", type=positive, default=[1, 5, 10], help="ranks of mean precision"
    )
    sub.add_argument(
        "--max-mb", type=positive, default=1024, help="bound on the similarities in memory"
    )
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")

    sub = command("ranking", _ranking, "draw some queries and the images that they find first")
    _add_inputs(sub)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the folder of its images")
    sub.add_argument("--features", default="cls", choices=["cls", "mean"])
    sub.add_argument("--layer", type=layer, default="last", help="by name or number")
    sub.add_argument("--queries", type=positive, default=6, help="spread over all")
    sub.add_argument("--results", type=positive, default=8, help="of each query")
    sub.add_argument("--label", default="", help="the model's name in the title")
    sub.add_argument("--out", type=Path, required=True, help="the PNG to write")


def _add_inputs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("store", type=Path)
    sub.add_argument("relevance", type=Path, help="table of what is relevant to which query")
    sub.add_argument("--final-norm", action="store_true", help="apply the model's final norm first")


def _retrieval(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.retrieval.job import write_retrieval

    write_retrieval(
        options.store,
        options.relevance,
        options.out,
        features=options.features,
        final_norm=options.final_norm,
        ranks=options.ranks,
        max_bytes=options.max_mb * 2**20,
        log=console.log,
    )


def _ranking(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.retrieval.ranking_job import write_ranking

    write_ranking(
        options.store,
        options.relevance,
        options.index,
        options.root,
        options.out,
        features=options.features,
        final_norm=options.final_norm,
        layer=options.layer,
        queries=options.queries,
        results=options.results,
        label=options.label,
        log=console.log,
    )
