"""Commands: annotated regions: clusters of their features, and attention against their masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, layer, positive
from vitfeat.console import Console

QUERIES = ["cls", "mean", "centre"]


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

    sub = command("saliency", _saliency, "score the most attended tokens against masks")
    _add_attention(sub)
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")

    sub = command("saliency-masks", _saliency_masks, "draw the most attended tokens over images")
    _add_attention(sub)
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    sub.add_argument("--table", type=Path, required=True, help="what saliency wrote")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--images", type=positive, default=4, help="how many, spread over all")
    chosen.add_argument(
        "--ids", nargs="+", action="extend", help="ids of the images, in the place of a number"
    )
    sub.add_argument("--layer", type=layer, default="last", help="by name or number")
    sub.add_argument("--label", default="", help="the model's name in the title")
    sub.add_argument("--out", type=Path, required=True, help="the figure to write (PNG)")


def _add_attention(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("store", type=Path)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--regions", type=Path, required=True, help="the dataset's table of regions")
    sub.add_argument(
        "--queries",
        nargs="+",
        default=QUERIES,
        choices=QUERIES,
        help="whose attention: CLS, mean of spatial queries, centre token",
    )
    sub.add_argument("--mass", type=float, default=0.6, help="share of attention that is kept")
    sub.add_argument(
        "--masks",
        default="coverage",
        choices=["coverage", "paper"],
        help="foreground: tokens covered by half or more, or as the research code has it",
    )


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


def _saliency(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.saliency.job import write_saliency

    write_saliency(
        options.store,
        options.index,
        options.regions,
        options.out,
        queries=options.queries,
        mass=options.mass,
        masks=options.masks,
        log=console.log,
    )


def _saliency_masks(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.saliency.masks_job import write_saliency_masks

    write_saliency_masks(
        options.store,
        options.index,
        options.root,
        options.regions,
        options.table,
        options.out,
        queries=options.queries,
        mass=options.mass,
        masks=options.masks,
        images=options.ids or options.images,
        layer=options.layer,
        label=options.label,
        log=console.log,
    )
