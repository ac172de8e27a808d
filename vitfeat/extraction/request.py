"""From settings to what is asked of one model and dataset, checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.annotations import RegionRow
from vitfeat.data.index import Index
from vitfeat.data.views import DenseView, PaddedView, SquareView, View, ViewSettings
from vitfeat.errors import ConfigError, ModelError
from vitfeat.extraction.regions import Regions, load_regions
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.layers import select_layers
from vitfeat.store.arrays import EXACT_TAPS, NORMS_GROUP, RESIDUAL_TAPS, SUMMARY_GROUP, Geometry
from vitfeat.store.layout import RAGGED_TAPS, Layout, available_taps, plan_layout
from vitfeat.store.limits import kept_rows
from vitfeat.text import nearest, plural

_RESIDUAL = (*RESIDUAL_TAPS, NORMS_GROUP)

# Families whose own code takes images of any size, fitting positions to each.
_ANY_SIZE = frozenset({"dino", "dinov2", "dinov2-reg", "dinov3"})

# Definitions of the attention summaries: 2 has the deviation over heads of spatial tokens.
_SUMMARIES = 2


@dataclass(frozen=True)
class Asked:
    """What the settings mean for one model and dataset."""

    view: View
    geometry: Geometry
    taps: tuple[str, ...]  # those that the model has, in the standard order
    kept: Mapping[str, Sequence[int]]  # by tap that is kept for some images only their rows
    # int64 (image, 2): rows and columns of every image's token grid, where they differ.
    grids: NDArray[np.int64] | None
    regions: Regions | None  # what features are pooled under, where they are
    request: Mapping[str, Any]  # everything that decides the store's numbers, as plain JSON
    # What is left out of what was asked, and in what the view departs from the model's own, a line
    # each for people.
    notes: Sequence[str]

    def layout(self, n_images: int, dtype: str) -> Layout:
        """Lay out the store."""
        starts: dict[str, Sequence[int]] = {}
        if self.grids is not None:
            starts["spatial"] = [0, *np.cumsum(self.grids.prod(1)).tolist()]
        if self.regions is not None:
            starts["regions"] = self.regions.starts.tolist()
        return plan_layout(self.geometry, self.taps, n_images, dtype, self.kept, starts)


def resolve(
    backbone: Backbone,
    index: Index,
    settings: Settings,
    annotated: Sequence[RegionRow] | None,
) -> Asked:
    """Find out what settings mean for a model, a dataset, and its table of regions."""
    view = view_for(backbone, settings.view)
    geometry = _geometry(backbone, select_layers(backbone.depth, settings.layers), view)
    _check_view(backbone, view, settings)
    taps = available_taps(geometry, settings.taps)
    if not taps:
        raise ModelError(
            f"model {backbone.entry.id}: has none of the asked taps ({', '.join(settings.taps)}); "
            "add spatial to extraction.taps, or leave the model out"
        )
    notes = _view_notes(backbone, settings)
    if "cls" in settings.taps and "cls" not in taps:
        notes.append(f"{backbone.entry.id} has no CLS token: the tap cls is left out")
    if not geometry.has_branches and (lost := [t for t in settings.taps if t in _RESIDUAL]):
        notes.append(
            f"{backbone.entry.id} has no blocks that add attention and MLP to skips of their own: "
            f"left out are {', '.join(lost)}"
        )
    _check_limits(settings)
    kept = kept_rows(settings.limits, taps, index.image_id)
    grids = grid_shapes(view, index) if isinstance(view, DenseView) else None
    regions = None
    if "regions" in taps:
        regions = _regions(backbone, index, view, grids, settings.masks, annotated)
        notes.append(
            f"{plural(len(regions.numbers), 'region')}; left out are {regions.n_crowd} as crowds "
            f"and {regions.n_uncovered} without a token under them"
        )
    request = _request(backbone, index, view, settings, geometry, kept, regions)
    return Asked(view, geometry, taps, kept, grids, regions, request, notes)


def _view_notes(backbone: Backbone, settings: Settings) -> list[str]:
    """Say where the dataset's view and not the model decides how images are cropped, resized."""
    entry, view = backbone.entry, settings.view
    both = {
        "crop fraction": (view.crop_fraction, entry.crop_fraction),
        "interpolation": (view.interpolation, backbone.interpolation),
    }
    return [
        f"{what} {asked} by the dataset's view, in the place of {entry.id}'s own {own}"
        for what, (asked, own) in both.items()
        if asked is not None and asked != own
    ]


def _geometry(backbone: Backbone, layers: Sequence[int], view: View) -> Geometry:
    return Geometry(
        layers=tuple(layers),
        width=backbone.width,
        heads=backbone.heads,
        grid=backbone.grid,
        has_cls=backbone.has_cls,
        n_registers=backbone.n_registers,
        has_branches=backbone.has_branches,
        ragged=isinstance(view, DenseView),
    )


def _request(
    backbone: Backbone,
    index: Index,
    view: View,
    settings: Settings,
    geometry: Geometry,
    kept: Mapping[str, Sequence[int]],
    regions: Regions | None,
) -> dict[str, Any]:
    """Return everything that decides a store's numbers, as plain JSON.

    Of the limits it has those that bind, and rounding only where something is rounded, so that a
    store without any is what it was before there were any. Ids stand in the order of the rows.
    """
    entry = backbone.entry
    taps = available_taps(geometry, settings.taps)
    limits = {
        tap: limit if isinstance(limit := settings.limits[tap], int) else _ids(index, rows)
        for tap, rows in kept.items()
    }
    rounded = settings.keep_bits is not None and not set(taps) <= set(EXACT_TAPS)
    request = {
        "model": {
            "source": entry.source,
            "name": entry.name,
            "args": dict(entry.args),
            "weights_sha256": backbone.weights_sha256(),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
        },
        "data": {"fingerprint": index.fingerprint, "n_images": len(index)},
        "view": view.describe(),
        "precision": settings.precision,
        "dtype": settings.dtype,
        **({"keep_bits": settings.keep_bits} if rounded else {}),
        "taps": list(taps),
        "layers": list(geometry.layers),
        **({"limits": limits} if limits else {}),
        **({"summaries": _SUMMARIES} if SUMMARY_GROUP in taps else {}),
    }
    if regions is not None:
        request["regions"] = {"fingerprint": regions.fingerprint, "masks": regions.masks}
    # Through JSON once, so that tuples and numbers compare as they will be read back.
    plain: dict[str, Any] = json.loads(json.dumps(request))
    return plain


def _ids(index: Index, rows: Sequence[int]) -> list[str]:
    return [index.image_id[row] for row in rows]


def _check_view(backbone: Backbone, view: View, settings: Settings) -> None:
    """Refuse taps that a view has not."""
    if not isinstance(view, DenseView):
        return
    model = backbone.entry.id
    if lost := [tap for tap in settings.taps if tap not in RAGGED_TAPS]:
        raise ConfigError(
            f"model {model}: the view dense has no {', '.join(lost)}; it has "
            f"{', '.join(RAGGED_TAPS)}: leave out the analyses that need others, or take the view "
            "square"
        )
    if view.window and (lost := [tap for tap in settings.taps if tap in ("cls", "registers")]):
        raise ConfigError(
            f"model {model}: {lost[0]} of images in windows: every window has its own; set the "
            "view's passes to one, or leave it out"
        )
    if settings.limits:
        raise ConfigError(
            f"limit of the tap {next(iter(settings.limits))}: the view dense keeps all images"
        )


def _regions(
    backbone: Backbone,
    index: Index,
    view: View,
    grids: NDArray[np.int64] | None,
    masks: str,
    annotated: Sequence[RegionRow] | None,
) -> Regions:
    if annotated is None:
        raise ConfigError(
            "the tap regions needs the dataset's table of regions: give --regions, made by "
            "vitfeat annotations"
        )
    if grids is None:
        grids = np.tile(np.array(backbone.grid, dtype=np.int64), (len(index), 1))
    return load_regions(annotated, index, view, grids, masks)


def _check_limits(settings: Settings) -> None:
    for tap in settings.limits:
        if tap not in settings.taps:
            raise ConfigError(
                f"limit of the tap {tap}: the tap is not asked for{nearest(tap, settings.taps)}; "
                f"asked are {', '.join(settings.taps)}"
            )


def view_for(backbone: Backbone, settings: ViewSettings) -> View:
    """Return the view of a model's images."""
    interpolation = settings.interpolation or backbone.interpolation
    if settings.kind == "square":
        own = backbone.entry.crop_fraction
        fraction = own if settings.crop_fraction is None else settings.crop_fraction
        return SquareView(backbone.image_size, fraction, interpolation)
    if settings.kind == "padded":
        return PaddedView(backbone.image_size, interpolation)
    auto = settings.passes == "auto" and backbone.entry.family_key in _ANY_SIZE
    window = None if auto or settings.passes == "one" else backbone.image_size
    try:
        return DenseView(*settings.side, backbone.patch_size, window, interpolation)
    except ValueError as error:
        side = settings.side[0]
        raise ConfigError(
            f"model {backbone.entry.id}: view.{side}_side: {error}; set a larger {side}_side, or "
            "passes: one"
        ) from error


def grid_shapes(view: DenseView, index: Index) -> NDArray[np.int64]:
    """Return int64 (image, 2): rows and columns of every image's grid of tokens."""
    sizes = [view.size_of(*row.seen_size) for row in index.rows()]
    return np.array(sizes, dtype=np.int64) // np.array(view.patch, dtype=np.int64)
