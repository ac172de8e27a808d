"""Files of attention maps: figures of grids with their tables, and a file a map."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.grids import (
    AttentionMapRow,
    Choice,
    ImageMaps,
    grid,
    one_map,
    table,
)
from vitfeat.analyses.attention_maps.map_blocks import Shown, single
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


@dataclass(frozen=True)
class Seen:
    """The maps of an image, and the crop that the model saw.

    Attributes
    ----------
    maps
        All of them.
    picture
        uint8 (height, width, 3), before normalisation.
    caption
        Which image it is.
    """

    maps: ImageMaps
    picture: NDArray[np.uint8]
    caption: str


def usable(names: Sequence[str], tokens: Tokens, model: str) -> tuple[str, ...]:
    """Leave out the position ``cls`` for a model without CLS token, where others remain."""
    others = tuple(name for name in names if name != "cls")
    if tokens.has_cls or not others or len(others) == len(names):
        return tuple(names)
    logger.warning(f"{model} has no CLS token: the position cls is left out")
    return others


def caption(image: str, named: str = "") -> str:
    """Return what stands above an image's maps: its id, and the name of its class."""
    shown = printable(image)
    if len(shown) > _CAPTION_LENGTH:
        shown = f"…{shown[1 - _CAPTION_LENGTH :]}"
    return f"{shown} ({shortened(printable(named))})" if named else shown


def write_grid(
    path: Path,
    kind: str,
    seen: Seen,
    settings: AttentionMapSettings,
    *,
    layer: int,
    layers: Container[int],
    title: str,
    note: str,
) -> None:
    """Draw one kind of grid of an image, and write its numbers, of all layers, beside it.

    Parameters
    ----------
    path
        The PNG; PDF and CSV stand beside it under the same name.
    kind
        Out of :data:`vitfeat.analyses.attention_maps.grids.KINDS`.
    seen
        The image.
    settings
        How maps are drawn.
    layer
        Number of the layer of head x position.
    layers
        Numbers of those that the other kinds show.
    title, note
        The model, and what the image is of.

    Raises
    ------
    AnalysisError
        The layer or the head is not there.
    """
    head = None if settings.head == "mean" else int(settings.head)
    made = grid(kind, seen.maps, Choice(layer, head, settings.positions[0]))
    drawn = figure(
        Shown(made.of_layers(layers), seen.picture, seen.caption),
        title=title,
        note=note,
        scale=settings.scale,
        percentile=settings.percentile,
        smooth=settings.smooth,
    )
    save_with_numbers(drawn, path, AttentionMapRow, table(made))


def remove_other_figures(folder: Path, written: Container[Path]) -> None:
    """Remove figures of images that are no longer asked for, and nothing else."""
    for path in folder.glob("[0-9]*-*"):
        if path.suffix in (".png", ".pdf", ".csv") and path.with_suffix(".png") not in written:
            path.unlink()


def folder_name(place: int, image: str) -> str:
    """Return a folder's name for an image, safe on every file system and different for each.

    Parameters
    ----------
    place
        Number of the image among those that are drawn.
    image
        Its id.

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


def write_single_maps(folder: Path, one: Seen, settings: AttentionMapSettings) -> int:
    """Write every map of an image: ``{layer}-{head}-{position}.png``, and its numbers as ``.npy``.

    The head is a number or ``mean``; a position ROW,COLUMN is written ``ROW_COLUMN``. The numbers
    are float32 (y, x); the pictures are of the size of the crop, or a multiple of it.

    Parameters
    ----------
    folder
        Where to.
    one
        The image.
    settings
        How maps are drawn.

    Returns
    -------
    int
        How many maps there are.
    """
    maps = one.maps
    common = settings.scale == "common"
    end = overlay.ends(maps.maps.spatial, settings.percentile, common=True)[0, 0, 0]
    places = [
        (layer, head, position)
        for layer in range(len(maps.layers))
        for head in (None, *range(maps.n_heads))
        for position in range(len(maps.positions))
    ]
    for layer, head, number in places:
        found, position = one_map(maps, layer, head, number), maps.positions[number]
        own = end if common else overlay.ends(found.spatial, settings.percentile)
        pixels = single(found, one.picture, position, own, smooth=settings.smooth)
        named = "mean" if head is None else f"{head:02d}"
        stem = f"{maps.layers[layer]:02d}-{named}-{position.name.replace(',', '_')}"
        with replacing(folder / f"{stem}.png") as partial:
            Image.fromarray(pixels).save(partial, format="png")
        with replacing(folder / f"{stem}.npy") as partial, partial.open("wb") as file:
            np.save(file, found.spatial.astype(np.float32))
    return len(places)
