"""Attention maps of a single image file: through a model, without a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.files import (
    caption,
    folder_name,
    usable_positions,
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
    """Push one image through a model on the CPU and draw its attention maps.

    Parameters
    ----------
    out
        The PNG; of several kinds ``{stem}-{kind}.png`` each. PDF and CSV stand beside it.
    kinds
        Out of :data:`vitfeat.analyses.attention_maps.grids.KINDS`.
    maps
        Folder for a file of every map; none are written if not given.
    """
    if out.suffix.lower() != ".png":
        raise AnalysisError(f"{out}: the figure is a PNG; give a name that ends in .png")
    tokens = Tokens(backbone.grid, backbone.has_cls, backbone.n_registers)
    chosen = usable_positions(settings.positions, tokens, backbone.entry.id)
    numbers = select_layers(backbone.depth, settings.layer)
    shown = select_layers(backbone.depth, settings.layers)
    view = SquareView(backbone.image_size, backbone.entry.crop_fraction, backbone.interpolation)
    picture = view(open_rgb(image, orientation))
    pixels = normalise(torch.from_numpy(picture)[None], backbone.mean, backbone.std)
    attention = collect(backbone, pixels, ("attention",))["attention"][0].float().numpy()
    of = image_maps(
        image.name,
        lambda place: attention[place],
        range(backbone.depth),
        tokens,
        chosen,
        picture=picture,
        caption=caption(image.name),
        renormalised=settings.renormalised,
    )
    height, width = backbone.image_size
    figures = [out]
    if len(kinds) > 1:
        figures = [out.with_name(f"{out.stem}-{kind}.png") for kind in kinds]
    for path, kind in zip(figures, kinds, strict=True):
        write_grid(
            path,
            kind,
            of,
            settings,
            layer=numbers[0],
            layers=shown,
            title=backbone.entry.label or backbone.entry.id,
            note=f"{width} x {height} pixels",
        )
    if maps is not None:
        count = write_single_maps(maps / folder_name(0, image.name), of, settings)
        logger.info(f"{maps}: {plural(count, 'map')}")
    return figures
