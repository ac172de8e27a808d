"""Commands of people: attention maps of images of a store, and of an image file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from vitfeat.analyses.attention_maps.settings import SHOWN, AttentionMapSettings
from vitfeat.cli.arguments import AddCommand, weights_folder
from vitfeat.cli.models import read_entry
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.console import Console

logger = logging.getLogger(__name__)

KINDS = ["position-layer", "head-position", "head-layer"]


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("attention-maps", _attention_maps, "draw attention maps of images of a store")
    sub.add_argument("store", type=Path)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    add_settings(sub, AttentionMapSettings, ("images", *SHOWN, "single_maps"))
    sub.add_argument("--label", default="", help="the model's name in titles")
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
    add_settings(sub, AttentionMapSettings, SHOWN)
    sub.add_argument("--maps", type=Path, help="folder for a file of every map")
    sub.add_argument("--out", type=Path, required=True, help="the figure to write (PNG)")
    weights_folder(sub)


def _attention_maps(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.analyses.attention_maps.job import draw_attention_maps

    draw_attention_maps(
        options.store,
        options.index,
        options.root,
        options.out,
        given_settings(options, AttentionMapSettings),
        label=options.label,
    )


def _attention_grid(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.attention_maps.image_grid import write_attention_grid
    from vitfeat.models.loading import load_backbone

    settings = given_settings(options, AttentionMapSettings)
    entry = read_entry(options.model, options.entry)
    backbone = load_backbone(entry, folder=options.weights_folder)
    for line in (*backbone.notes, f"images are normalised: {backbone.normalisation}"):
        logger.info(line)
    kinds = KINDS if options.kind == "all" else [options.kind]
    figures = write_attention_grid(
        options.image,
        backbone,
        options.out,
        settings,
        kinds=[kind.replace("-", "_") for kind in kinds],
        orientation=options.orientation,
        maps=options.maps,
    )
    for path in figures:
        console.print(str(path))
