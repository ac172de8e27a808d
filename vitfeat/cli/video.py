"""Commands: objects followed through videos."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, layer, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    text = "follow objects of the first frame through videos, with every layer of a store"
    sub = command("video", _video, text)
    sub.add_argument("store", type=Path)
    sub.add_argument("--frames", type=Path, required=True, help="the dataset's table of frames")
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    sub.add_argument("--context", type=count, default=7, help="frames before, beside the first")
    sub.add_argument(
        "--neighbourhood", type=count, default=12, help="rows and columns of tokens to a match"
    )
    sub.add_argument("--top", type=positive, default=5, help="matches of a token that count")
    sub.add_argument("--temperature", type=float, default=0.1)
    sub.add_argument(
        "--normalise",
        default="none",
        choices=["none", "paper"],
        help="what becomes of soft masks before the largest wins",
    )
    sub.add_argument(
        "--objects",
        default="first_mask",
        choices=["first_mask", "official"],
        help="scored are those of the first mask, or all numbers up to its highest",
    )
    sub.add_argument(
        "--masks", nargs="+", type=layer, help="layers whose masks are written, by name or number"
    )
    sub.add_argument("--mask-folder", type=Path, help="where masks are written")
    sub.add_argument("--figure", type=Path, help="the figure of some frames to draw (PNG)")
    sub.add_argument("--label", default="", help="the model's name in it")
    sub.add_argument("--threads", type=positive, default=1, help="layers side by side")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")


def _video(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.video.job import write_video
    from vitfeat.analyses.video.propagation import Propagation
    from vitfeat.errors import ConfigError

    if options.masks and options.mask_folder is None:
        raise ConfigError("--masks: say with --mask-folder where masks are to be written")
    write_video(
        options.store,
        options.frames,
        options.index,
        options.root,
        options.out,
        settings=Propagation(
            options.context, options.neighbourhood, options.top, options.temperature
        ),
        normalise=options.normalise,
        objects=options.objects,
        masks=options.masks,
        folder=options.mask_folder,
        figure=options.figure,
        label=options.label,
        threads=options.threads,
        log=console.log,
    )
