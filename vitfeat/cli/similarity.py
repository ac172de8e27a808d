"""Commands: CKA with intervals, and other measures of similarity."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, models_json, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command(
        "similarity", _similarity, "compare two models by several measures, from Gram matrices"
    )
    sub.add_argument("gram_a", type=Path)
    sub.add_argument("gram_b", type=Path)
    sub.add_argument("--measures", nargs="+", help="default: all of them")
    sub.add_argument("--layers", choices=["last", "all"], default="last")
    sub.add_argument("--neighbours", type=positive, default=10, help="of an image (mutual_knn)")
    sub.add_argument("--variance", type=_share, default=0.99, help="share that is kept (svcca)")
    sub.add_argument(
        "--images", type=positive, help="how many, spread over the dataset; default: all"
    )
    sub.add_argument(
        "--resamples", type=count, default=200, help="of the images, for intervals; 0 gives none"
    )
    sub.add_argument("--confidence", type=_confidence, default=0.95, help="of the intervals")
    sub.add_argument("--seed", type=count, default=0, help="of the resamples")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")

    sub = command("plot-similarity", _plot_similarity, "draw the similarity of several models")
    sub.add_argument("folder", type=Path, help="where {dataset}/{tokens}/{a}--{b}.csv are")
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--tokens", nargs="+", required=True)
    sub.add_argument("--models", required=True, help="[{id, label, family, size}, ...] as JSON")
    sub.add_argument("--out", type=Path, required=True, help="folder for the figures")


def _share(text: str) -> float:
    """Read a number above 0 and at most 1."""
    if not 0 < (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _confidence(text: str) -> float:
    """Read a number between 0 and 1."""
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _similarity(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.similarity.job import write_similarity
    from vitfeat.analyses.similarity.measures import NAMES

    write_similarity(
        options.gram_a,
        options.gram_b,
        options.out,
        names=options.measures or NAMES,
        layers=options.layers,
        neighbours=options.neighbours,
        variance=options.variance,
        images=options.images,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
        log=console.log,
    )


def _plot_similarity(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.similarity.figures_job import draw_similarity
    from vitfeat.figures.models import models_from
    from vitfeat.plan.needs import cka_tables

    models = models_from(models_json(options.models))
    ids = [model.id for model in models]
    tables = cka_tables(options.folder, options.datasets, options.tokens, ids)
    draw_similarity(tables, models, options.out)
