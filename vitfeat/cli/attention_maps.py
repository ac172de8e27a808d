"""Commands: attention maps of chosen images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vitfeat.cli.arguments import AddCommand, layer, positive, weights_folder
from vitfeat.cli.models import read_entry
from vitfeat.console import Console

if TYPE_CHECKING:
    from vitfeat.analyses.attention_maps.files import Looks

POSITIONS = ["cls", "top", "left", "centre", "right", "bottom", "mean"]
KINDS = ["position-layer", "head-position", "head-layer"]


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("attention-maps", _attention_maps, "draw attention maps of images of a store")
    sub.add_argument("store", type=Path)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--images", type=positive, default=3, help="how many, spread over all")
    chosen.add_argument(
        "--ids", nargs="+", action="extend", help="ids of the images, in the place of a number"
    )
    _add_looks(sub)
    sub.add_argument("--label", default="", help="the model's name in titles")
    sub.add_argument("--single-maps", action="store_true", help="write a file of every map too")
    sub.add_argument("--out", type=Path, required=True, help="folder to write to")

    sub = command("attention-grid", _attention_grid, "draw the attention maps of an image file")
    sub.add_argument("image", type=Path)
    sub.add_argument("--model", required=True, help="id of the model")
    sub.add_argument("--entry", help="the model's fields as JSON, in the place of the catalogue's")
    sub.add_argument(
        "--kind",
        choices=[*KINDS, "all"],
        default=KINDS[0],
        help="what goes down and what across; of all, the kind is added to the figure's name",
    )
    sub.add_argument(
        "--orientation",
        choices=["stored", "exif"],
        default="stored",
        help="the image as stored, or turned as its EXIF says",
    )
    _add_looks(sub)
    sub.add_argument("--maps", type=Path, help="folder for a file of every map")
    sub.add_argument("--out", type=Path, required=True, help="the figure to write (PNG)")
    weights_folder(sub)


def _add_looks(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--positions",
        nargs="+",
        default=POSITIONS,
        help="queries: cls, top, left, centre, right, bottom, mean, diagonal, ROW,COLUMN; the "
        "first is that of head x layer",
    )
    sub.add_argument("--layer", type=layer, default="last", help="of head x position")
    sub.add_argument("--head", type=_head, help="of position x layer: a number, or mean (default)")
    sub.add_argument("--renormalised", action="store_true", help="divide by what spatial keys get")
    sub.add_argument(
        "--layers",
        nargs="+",
        type=layer,
        default=["spread"],
        help="of position x layer and head x layer: all, spread (up to six), names or numbers",
    )
    sub.add_argument(
        "--scale",
        choices=["own", "common"],
        default="own",
        help="of colours: each map's own, or one of all maps in a figure",
    )
    sub.add_argument(
        "--percentile",
        type=_percentile,
        default=98.0,
        help="of a map's or the figure's values, where colours end; 100: at the maximum",
    )
    sub.add_argument("--smooth", action="store_true", help="interpolate between tokens")


def _head(text: str) -> int | None:
    """Read a head; None is the mean over heads."""
    if text != "mean" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: mean, or a number from 0")
    return None if text == "mean" else int(text)


def _percentile(text: str) -> float:
    """Read a percentile above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: above 0, up to 100")
    return value


def _looks(options: argparse.Namespace) -> Looks:
    from vitfeat.analyses.attention_maps.files import Looks

    return Looks(
        positions=tuple(options.positions),
        head=options.head,
        renormalised=options.renormalised,
        layers=tuple(options.layers),
        scale=options.scale,
        percentile=options.percentile,
        smooth=options.smooth,
    )


def _attention_maps(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.attention_maps.job import write_attention_maps

    write_attention_maps(
        options.store,
        options.index,
        options.root,
        options.out,
        looks=_looks(options),
        images=options.ids or options.images,
        layer=options.layer,
        label=options.label,
        single_maps=options.single_maps,
        log=console.log,
    )


def _attention_grid(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.attention_maps.image_grid import write_attention_grid
    from vitfeat.models.loading import load_backbone

    entry = read_entry(options.model, options.entry)
    backbone = load_backbone(entry, folder=options.weights_folder, log=console.log)
    for line in (*backbone.notes, f"images are normalised: {backbone.normalisation}"):
        console.log(line)
    kinds = KINDS if options.kind == "all" else [options.kind]
    figures = write_attention_grid(
        options.image,
        backbone,
        options.out,
        looks=_looks(options),
        kinds=[kind.replace("-", "_") for kind in kinds],
        layer=options.layer,
        orientation=options.orientation,
        maps=options.maps,
        log=console.log,
    )
    for path in figures:
        console.print(str(path))
