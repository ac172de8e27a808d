"""Commands: keypoints found in other images."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("keypoints", _keypoints, "find keypoints of one image in another, in every layer")
    sub.add_argument("store", type=Path)
    sub.add_argument("points", type=Path, help="the dataset's table of keypoints")
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument(
        "--alphas",
        nargs="+",
        type=_share,
        default=[0.1, 0.05, 0.01],
        help="distances that count as found, as shares of the larger side of the target's box",
    )
    sub.add_argument("--pairs", type=positive, help="drawn of each category (default: all)")
    sub.add_argument("--seed", type=count, default=0, help="of the drawing")
    sub.add_argument("--threads", type=positive, default=1, help="layers side by side")
    sub.add_argument(
        "--max-mb", type=positive, default=1024, help="bound on the tokens of images in memory"
    )
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")
    sub.add_argument("--figure", type=Path, help="draw some pairs: the PNG to write")
    sub.add_argument("--root", type=Path, help="the folder of the images, for the figure")
    sub.add_argument("--label", default="", help="the model's name in the figure")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _keypoints(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.keypoints.job import write_keypoints
    from vitfeat.analyses.keypoints.matches_job import write_matches
    from vitfeat.analyses.keypoints.pairs import open_task
    from vitfeat.errors import ConfigError

    if options.figure is not None and options.root is None:
        raise ConfigError("--figure: needs --root, the folder of the images")
    store, task = open_task(
        options.store,
        options.index,
        options.points,
        pairs=options.pairs,
        seed=options.seed,
        log=console.log,
    )
    layers = write_keypoints(
        store,
        task,
        options.out,
        alphas=options.alphas,
        threads=options.threads,
        max_bytes=options.max_mb * 2**20,
    )
    if options.figure is not None:
        write_matches(
            store,
            task,
            layers,
            options.index,
            options.root,
            options.figure,
            alphas=options.alphas,
            label=options.label,
        )
