"""Attention maps of a single image file: through a model, without a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import positions
from vitfeat.analyses.attention_maps.files import (
    Seen,
    caption,
    folder_name,
    usable,
    write_grid,
    write_single_maps,
)
from vitfeat.analyses.attention_maps.grids import image_maps
from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.data.images import Orientation, open_rgb
from vitfeat.data.loader import normalise
from vitfeat.data.views import SquareView
from vitfeat.errors import AnalysisError
from vitfeat.models.backbone import Backbone
from vitfeat.models.layers import select_layers
from vitfeat.models.taps import collect
from vitfeat.text import plural

logger = logging.getLogger(__name__)


def write_attention_grid(
    image: Path,
    backbone: Backbone,
    out: Path,
    settings: AttentionMapSettings,
    *,
    kinds: Sequence[str] = ("position_layer",),
    orientation: Orientation = "stored",
    maps: Path | None = None,
) -> list[Path]:
    """Push one image through a model and draw its attention maps.

    Parameters
    ----------
    image
        A file of any kind that :mod:`vitfeat.data.images` reads.
    backbone
        The model, on the CPU.
    out
        The PNG; of several kinds ``{stem}-{kind}.png`` each. PDF and CSV stand beside it.
    settings
        Which maps are drawn and how.
    kinds
        Out of :data:`vitfeat.analyses.attention_maps.grids.KINDS`.
    orientation
        Whether the image is turned as its EXIF says.
    maps
        Folder for a file of every map; none are written if not given.

    Returns
    -------
    list of Path
        The figures.

    Raises
    ------
    DataError, ModelError, ConfigError, AnalysisError
        The image cannot be read, the model's attention cannot be tapped, or a layer, position, head
        or kind is not there.
    """
    if out.suffix.lower() != ".png":
        raise AnalysisError(f"{out}: the figure is a PNG; give a name that ends in .png")
    tokens = Tokens(backbone.grid, backbone.has_cls, backbone.n_registers)
    names = usable(settings.positions, tokens, backbone.entry.id)
    chosen = positions(names, tokens)
    numbers = select_layers(backbone.depth, settings.layer)
    shown = select_layers(backbone.depth, settings.layers)
    view = SquareView(backbone.image_size, backbone.entry.crop_fraction, backbone.interpolation)
    picture = view(open_rgb(image, orientation))
    pixels = normalise(torch.from_numpy(picture)[None], backbone.mean, backbone.std)
    attention = collect(backbone, pixels, ("attention",))["attention"][0].float().numpy()
    found = image_maps(
        image.name,
        lambda place: attention[place],
        range(backbone.depth),
        tokens,
        chosen,
        renormalised=settings.renormalised,
    )
    seen = Seen(found, picture, caption(image.name))
    height, width = backbone.image_size
    figures = []
    for kind in kinds:
        path = out if len(kinds) == 1 else out.with_name(f"{out.stem}-{kind}.png")
        write_grid(
            path,
            kind,
            seen,
            settings,
            layer=numbers[0],
            layers=shown,
            title=backbone.entry.label or backbone.entry.id,
            note=f"{width} x {height} pixels",
        )
        figures.append(path)
    if maps is not None:
        count = write_single_maps(maps / folder_name(0, image.name), seen, settings)
        logger.info(f"{maps}: {plural(count, 'map')}")
    return figures
