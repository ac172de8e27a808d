"""Files of attention maps: figures of grids with their tables, and a file a map."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import Position, positions
from vitfeat.analyses.attention_maps.grids import AttentionMapRow, ImageMaps, grid, table
from vitfeat.analyses.attention_maps.map_blocks import single
from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.attention_maps.sheets import figure
from vitfeat.data.images import printable
from vitfeat.figures import overlay
from vitfeat.figures.models import shortened
from vitfeat.files import replacing
from vitfeat.jobs.figure_files import save_with_numbers

logger = logging.getLogger(__name__)

# Letters of an image's id in the name of its folder.
_NAME_LENGTH = 50

_SINGLE_MAP = re.compile(r"\d{2,}-(mean|\d{2,})-\w+\.(png|npy)")

# Of a caption: longer ids are cut at their front.
_CAPTION_LENGTH = 70


def usable_positions(names: Sequence[str], tokens: Tokens, model: str) -> list[Position]:
    """Return the queries, without ``cls`` for a model without CLS token where others remain."""
    others = [name for name in names if name != "cls"]
    if tokens.has_cls or not others or len(others) == len(names):
        return positions(names, tokens)
    logger.warning(f"{model} has no CLS token: the position cls is left out")
    return positions(others, tokens)


def caption(image: str, named: str = "") -> str:
    """Return what stands above an image's maps: its id, and the name of its class."""
    shown = printable(image)
    if len(shown) > _CAPTION_LENGTH:
        shown = f"…{shown[1 - _CAPTION_LENGTH :]}"
    return f"{shown} ({shortened(printable(named))})" if named else shown


def write_grid(
    path: Path,
    kind: str,
    maps: ImageMaps,
    settings: AttentionMapSettings,
    *,
    layer: int,
    layers: Container[int],
    title: str,
    note: str,
) -> None:
    """Draw one kind of grid of an image, and write its numbers, of all layers, beside the PNG.

    `layer` is that of head x position; `layers` are those that the other kinds show.
    """
    head = None if settings.head == "mean" else int(settings.head)
    laid = grid(kind, maps, layer=layer, head=head, position=settings.positions[0])
    drawn = figure(
        laid.of_layers(layers),
        title=title,
        note=note,
        scale=settings.scale,
        percentile=settings.percentile,
        smooth=settings.smooth,
    )
    save_with_numbers(drawn, path, AttentionMapRow, table(laid))


def remove_other_figures(folder: Path, written: Container[Path]) -> None:
    """Remove figures of images that are no longer asked for, and nothing else."""
    for path in folder.glob("[0-9]*-*"):
        if (
            path.suffix in (".png", ".pdf", ".svg", ".csv")
            and path.with_suffix(".png") not in written
        ):
            path.unlink()


def folder_name(place: int, image: str) -> str:
    """Return a folder's name for the image at a place: safe on every file system, none twice.

    Examples
    --------
    >>> folder_name(0, "dog/Rex & Co.png")
    '0-dog_Rex_Co'
    """
    stem = str(PurePosixPath(image).with_suffix(""))
    return f"{place}-{re.sub(r'[^A-Za-z0-9.-]+', '_', stem)[-_NAME_LENGTH:].strip('.')}"


def remove_single_maps(folder: Path) -> None:
    """Remove what :func:`write_single_maps` wrote below a folder, and nothing else.

    Maps of other images, positions or heads would stand among new ones.
    """
    for one in folder.glob("[0-9]*-*"):
        for path in one.glob("[0-9][0-9]*-*-*"):
            if _SINGLE_MAP.fullmatch(path.name):
                path.unlink()
        if one.is_dir() and not any(one.iterdir()):
            one.rmdir()


def write_single_maps(folder: Path, of: ImageMaps, settings: AttentionMapSettings) -> int:
    """Write every map of an image: ``{layer}-{head}-{position}.png``, and its numbers as ``.npy``.

    The head is a number or ``mean``; a position ROW,COLUMN is written ``ROW_COLUMN``. The numbers
    are float32 (y, x); the pictures are of the size of the crop, or a multiple of it. Returns how
    many maps there are.
    """
    end = overlay.ends(of.maps.spatial[:, 1:], settings.percentile, common=True)[0, 0, 0]
    places = list(np.ndindex(of.maps.on_cls.shape))
    for place in places:
        layer, head, position = (
            names[at] for names, at in zip((of.layers, of.heads, of.positions), place, strict=True)
        )
        one = of.maps[place]
        own = end if settings.scale == "common" else overlay.ends(one.spatial, settings.percentile)
        pixels = single(one, of.picture, position, own, smooth=settings.smooth)
        named = "mean" if head is None else f"{head:02d}"
        stem = f"{layer:02d}-{named}-{position.name.replace(',', '_')}"
        with replacing(folder / f"{stem}.png") as partial:
            Image.fromarray(pixels).save(partial, format="png")
        with replacing(folder / f"{stem}.npy") as partial, partial.open("wb") as file:
            np.save(file, one.spatial.astype(np.float32))
    return len(places)
