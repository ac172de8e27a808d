"""Extraction of one model over one dataset into one store."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitfeat.data.companions import RegionRow
from vitfeat.data.index import Index
from vitfeat.data.loader import load_batches
from vitfeat.data.views import DenseView, View, ViewSettings
from vitfeat.errors import ConfigError, ModelError, StoreError
from vitfeat.extract.inputs import grid_shapes, view_for
from vitfeat.extract.job import Job
from vitfeat.extract.pipeline import Schedule, run_pipeline, schedule
from vitfeat.extract.probe import probe
from vitfeat.extract.regions import Regions, load_regions
from vitfeat.models.backbone import Backbone
from vitfeat.models.layers import select_layers
from vitfeat.store import provenance
from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS, Geometry
from vitfeat.store.layout import RAGGED_TAPS, available_taps, plan_layout
from vitfeat.store.limits import Limit, kept_rows
from vitfeat.store.reader import is_store, open_store
from vitfeat.store.writer import Rows, manifest, open_writer, partial_path
from vitfeat.text import duration, nearest, plural, size

Log = Callable[[str], None]

_RESIDUAL = (*RESIDUAL_TAPS, NORMS_GROUP)

# Bytes of image files that are decoded sooner than a process has started.
_SMALL_DATASET = 8 * 2**20


@dataclass(frozen=True)
class Settings:
    """What to extract and how.

    Attributes
    ----------
    taps
        What to store, out of :data:`vitfeat.store.layout.TAPS`.
    limits
        Taps that are kept for some images only: so many, spread over the dataset
        (:func:`vitfeat.store.limits.spread`), or the images of these ids. Norms and summaries come
        from the pass, whatever the limits of the tensors that they are made of.
    layers
        Layers by name or number (:func:`vitfeat.models.layers.select_layers`).
    dtype
        Element type of the stored features.
    precision
        Arithmetic of the forward pass.
    batch_size
        Images that are decoded, and on a GPU pushed, together.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threads
        CPU threads of the forward pass.
    workers
        Processes that decode; 0 decodes between the passes, None fits them to the work.
    replace
        Whether a store from other settings under the same path may be replaced.
    view
        How images become inputs.
    masks
        How masks weigh tokens, for the tap ``regions``
        (:func:`vitfeat.extract.regions.load_regions`).
    """

    taps: Sequence[str] = ("cls", "spatial")
    limits: Mapping[str, Limit] = field(default_factory=dict)
    layers: str | int | Sequence[str | int] = "all"
    dtype: str = "float16"
    precision: str = "fp32"
    batch_size: int = 32
    device: str = "auto"
    threads: int = 0
    workers: int | None = None
    replace: bool = False
    view: ViewSettings = field(default_factory=ViewSettings)
    masks: str = "coverage"


def choose_device(name: str) -> torch.device:
    """Turn a device's name into a device; ``auto`` takes a GPU where there is one.

    Raises
    ------
    ConfigError
        For a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"extraction.device: found {name!r}; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"extraction.device: found {name!r}, but this machine has "
            f"{plural(torch.cuda.device_count(), 'usable GPU')}; use auto or cpu"
        )
    return device


def geometry_of(backbone: Backbone, layers: Sequence[int], view: View | None = None) -> Geometry:
    """Return the sizes that a store's layout needs."""
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


def build_request(
    backbone: Backbone,
    index: Index,
    view: View,
    settings: Settings,
    geometry: Geometry,
    kept: Mapping[str, Sequence[int]],
    regions: Regions | None = None,
) -> dict[str, Any]:
    """Return everything that decides a store's numbers, as plain JSON.

    Of the limits it has those that bind, so that a store without any is what it was before there
    were limits. Ids stand in the order of the rows.
    """
    entry = backbone.entry
    limits = {
        tap: limit if isinstance(limit := settings.limits[tap], int) else _ids(index, rows)
        for tap, rows in kept.items()
    }
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
        "taps": list(available_taps(geometry, settings.taps)),
        "layers": list(geometry.layers),
        **({"limits": limits} if limits else {}),
    }
    if regions is not None:
        request["regions"] = {"fingerprint": regions.fingerprint, "masks": regions.masks}
    # Through JSON once, so that tuples and numbers compare as they will be read back.
    plain: dict[str, Any] = json.loads(json.dumps(request))
    return plain


def _ids(index: Index, rows: Sequence[int]) -> list[str]:
    return [index.image_id[row] for row in rows]


def extract(
    backbone: Backbone,
    index: Index,
    root: Path,
    out: Path,
    settings: Settings,
    *,
    log: Log = lambda _: None,
    on_images: Callable[[int], None] = lambda _: None,
    batches: Callable[[Schedule], Iterator[Tensor]] | None = None,
    annotated: Sequence[RegionRow] | None = None,
) -> dict[str, Any]:
    """Push every image through the model once and store what the taps give.

    A finished store of the same request is kept as it is; an interrupted one is gone on with.

    Parameters
    ----------
    backbone
        The model, on any device.
    index, root
        The images, and the folder that their ids are relative to.
    out
        Where the store goes.
    settings
        What to extract and how.
    log
        Takes lines for people.
    on_images
        Called with the number of images of every finished batch, and of those that an interrupted
        store holds already.
    batches
        Gives uint8 batches (n, height, width, 3) in the place of decoding the files.
    annotated
        The dataset's table of regions, for the tap ``regions``.

    Returns
    -------
    dict
        The sealed store's manifest.

    Raises
    ------
    VitfeatError
        With one line for the user; see docs/store.md for what stays on disk.
    """
    started = time.monotonic()
    device = choose_device(settings.device)
    layers = select_layers(backbone.depth, settings.layers)
    view = view_for(backbone, settings.view)
    geometry = geometry_of(backbone, layers, view)
    _check_view(backbone, view, settings)
    taps = available_taps(geometry, settings.taps)
    if not taps:
        raise ModelError(
            f"model {backbone.entry.id}: has none of the asked taps ({', '.join(settings.taps)}); "
            "add spatial to extraction.taps, or leave the model out"
        )
    if "cls" in settings.taps and "cls" not in taps:
        log(f"{backbone.entry.id} has no CLS token: the tap cls is left out")
    if not geometry.has_branches and (lost := [t for t in settings.taps if t in _RESIDUAL]):
        log(
            f"{backbone.entry.id} has no blocks that add attention and MLP to skips of their own: "
            f"left out are {', '.join(lost)}"
        )
    _check_limits(settings)
    kept = kept_rows(settings.limits, taps, index.image_id)
    grids = grid_shapes(view, index) if isinstance(view, DenseView) else None
    regions = None
    if "regions" in taps:
        regions = _regions(backbone, index, view, grids, settings.masks, annotated, log)
    request = build_request(backbone, index, view, settings, geometry, kept, regions)
    if (finished := _finished(out, request, settings.replace, log)) is not None:
        return finished

    starts: dict[str, Sequence[int]] = {}
    if grids is not None:
        starts["spatial"] = [0, *np.cumsum(grids.prod(1)).tolist()]
    if regions is not None:
        starts["regions"] = regions.starts.tolist()
    layout = plan_layout(geometry, taps, len(index), settings.dtype, kept, starts)
    backbone.module.to(device)
    job = Job(
        backbone=backbone,
        geometry=geometry,
        layout=layout,
        device=device,
        dtype=settings.dtype,
        precision=settings.precision,
        threads=settings.threads or os.cpu_count() or 1,
        image_ids=index.image_id,
        view=view,
        regions=regions,
    )
    tokens = 1.0 if grids is None else float(grids.prod(1).mean()) / prod(geometry.grid)
    _announce(job, out, request, tokens * probe(job), log)
    rows = Rows(
        index.image_id,
        index.label,
        _classes(index),
        index.skipped,
        grids,
        None if regions is None else regions.numbers,
    )
    with open_writer(
        out,
        layout,
        geometry,
        rows,
        request,
        backbone.entry.id,
        weights=backbone.weights,
        final_norm=backbone.final_norm,
        replace=settings.replace,
    ) as writer:
        missing = writer.missing_blocks()
        if len(missing) < layout.n_blocks:
            log(f"going on with an interrupted store: {len(missing)} of {layout.n_blocks} blocks")
            on_images(len(index) - sum(len(layout.rows(block)) for block in missing))
        plan = schedule(layout, missing, settings.batch_size, on_gpu=job.on_gpu)
        if batches is None:
            source: Iterator[Sequence[Tensor]] = load_batches(
                index,
                root,
                view,
                plan.all_batches,
                workers=_workers(job, index, settings.workers),
                pin=job.on_gpu,
            )
        else:
            source = ([batch] for batch in batches(plan))
        with closing(source):  # type: ignore[type-var]
            run_pipeline(job, writer, plan, source, on_images)
        sealed = writer.seal()
    log(
        f"{out}: {plural(len(index), 'image')} in {duration(time.monotonic() - started)}, "
        f"{size(sum(a['bytes'] for a in sealed['arrays'].values()))}"
    )
    return sealed


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
    log: Log,
) -> Regions:
    if annotated is None:
        raise ConfigError(
            "the tap regions needs the dataset's table of regions: give --regions, made by "
            "vitfeat annotations"
        )
    if grids is None:
        grids = np.tile(np.array(backbone.grid, dtype=np.int64), (len(index), 1))
    regions = load_regions(annotated, index, view, grids, masks)
    log(
        f"{plural(len(regions.numbers), 'region')}; left out are {regions.n_crowd} as crowds and "
        f"{regions.n_uncovered} without a token under them"
    )
    return regions


def _check_limits(settings: Settings) -> None:
    for tap in settings.limits:
        if tap not in settings.taps:
            raise ConfigError(
                f"limit of the tap {tap}: the tap is not asked for{nearest(tap, settings.taps)}; "
                f"asked are {', '.join(settings.taps)}"
            )


def _finished(
    out: Path, request: Mapping[str, Any], replace: bool, log: Log
) -> dict[str, Any] | None:
    """Return the manifest of a finished store of this request, if that is what stands there."""
    if not out.exists():
        return None
    if not is_store(out):
        # Not even with --replace: it may be anything of the user's.
        raise StoreError(f"{out}: something that is no store stands there; choose another path")
    try:
        store = open_store(out, check_manifest=False)
    except StoreError:
        if replace:
            return None
        raise
    other = provenance.differences(store.attributes["request"], request)
    if not other:
        log(f"{out}: already there, whole and from these settings: nothing to do")
        return manifest(out, store.attributes)
    if replace:
        log(f"{out}: from other settings ({other}); it will be replaced")
        return None
    raise StoreError(
        f"{out}: a store from other settings stands there ({other}); remove it, or pass --replace"
    )


def _workers(job: Job, index: Index, asked: int | None) -> int:
    """Choose how many processes decode.

    A GPU leaves the CPU to them. Beside a forward pass on the CPU one process keeps four threads
    fed, and none is worth its start when the images are a few small files.
    """
    if asked is not None:
        return asked
    if int(index.n_bytes.sum()) < _SMALL_DATASET:
        return 0
    return max(1, job.threads - 1 if job.on_gpu else job.threads // 4)


def _classes(index: Index) -> dict[int, str]:
    """Return the name of each label that is there."""
    names = {int(label): name for label, name in zip(index.label, index.class_name, strict=True)}
    return {label: names[label] for label in sorted(names) if label >= 0}


def _announce(job: Job, out: Path, request: Mapping[str, Any], seconds: float, log: Log) -> None:
    """Say what is to come, and refuse what the disk cannot hold.

    The size is that of the uncompressed numbers: what compression saves is not known before.
    """
    layout = job.layout
    kept = {a.tap: layout.length(a) for a in layout.arrays if a.dims[0].endswith("_image")}
    taps = [f"{t} (of {plural(kept[t], 'image')})" if t in kept else t for t in request["taps"]]
    log(
        f"{out}: {plural(layout.n_images, 'image')} x {len(job.geometry.layers)} layers, taps "
        f"{', '.join(taps)}, at most {size(layout.n_bytes)}, about "
        f"{duration(seconds * layout.n_images)} on {job.device}"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    done = sum(f.stat().st_size for f in partial.rglob("*") if f.is_file())
    free = shutil.disk_usage(out.parent).free
    # What is gathered stands beside their blocks until it is put into shards.
    needed = layout.n_bytes + layout.gathered_bytes - done
    if needed > free:
        raise StoreError(
            f"{out}: the store needs up to {size(needed)}, the disk has "
            f"{size(free)} free; make room, or take fewer images, layers or taps"
        )
