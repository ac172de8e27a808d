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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitfeat.data.index import Index
from vitfeat.data.loader import load_batches
from vitfeat.data.views import SquareView
from vitfeat.errors import ConfigError, ModelError, StoreError
from vitfeat.extract.job import Job
from vitfeat.extract.pipeline import Schedule, run_pipeline, schedule
from vitfeat.extract.probe import probe
from vitfeat.models.backbone import Backbone
from vitfeat.models.layers import select_layers
from vitfeat.store import provenance
from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS, Geometry
from vitfeat.store.layout import available_taps, plan_layout
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


def geometry_of(backbone: Backbone, layers: Sequence[int]) -> Geometry:
    """Return the sizes that a store's layout needs."""
    return Geometry(
        layers=tuple(layers),
        width=backbone.width,
        heads=backbone.heads,
        grid=backbone.grid,
        has_cls=backbone.has_cls,
        n_registers=backbone.n_registers,
        has_branches=backbone.has_branches,
    )


def build_request(
    backbone: Backbone,
    index: Index,
    view: SquareView,
    settings: Settings,
    geometry: Geometry,
    kept: Mapping[str, Sequence[int]],
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
    geometry = geometry_of(backbone, layers)
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
    view = SquareView(backbone.image_size, backbone.entry.crop_fraction, backbone.interpolation)
    request = build_request(backbone, index, view, settings, geometry, kept)
    if (finished := _finished(out, request, settings.replace, log)) is not None:
        return finished

    layout = plan_layout(geometry, taps, len(index), settings.dtype, kept)
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
    )
    _announce(job, out, request, probe(job), log)
    rows = Rows(index.image_id, index.label, _classes(index), index.skipped)
    with open_writer(
        out,
        layout,
        geometry,
        rows,
        request,
        backbone.entry.id,
        weights=backbone.weights,
        replace=settings.replace,
    ) as writer:
        missing = writer.missing_blocks()
        if len(missing) < layout.n_blocks:
            log(f"going on with an interrupted store: {len(missing)} of {layout.n_blocks} blocks")
            on_images(len(index) - sum(len(layout.rows(block)) for block in missing))
        plan = schedule(layout, missing, settings.batch_size, on_gpu=job.on_gpu)
        if batches is None:
            source: Iterator[Tensor] = load_batches(
                index,
                root,
                view,
                plan.all_batches,
                workers=_workers(job, index, settings.workers),
                pin=job.on_gpu,
            )
        else:
            source = batches(plan)
        with closing(source):  # type: ignore[type-var]
            run_pipeline(job, writer, plan, source, on_images)
        sealed = writer.seal()
    log(
        f"{out}: {plural(len(index), 'image')} in {duration(time.monotonic() - started)}, "
        f"{size(sum(a['bytes'] for a in sealed['arrays'].values()))}"
    )
    return sealed


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
    kept = {a.tap: len(a.rows) for a in layout.arrays if a.rows is not None}
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
    # What is kept of some images stands beside their blocks until it is put into shards.
    needed = layout.n_bytes + layout.limited_bytes - done
    if needed > free:
        raise StoreError(
            f"{out}: the store needs up to {size(needed)}, the disk has "
            f"{size(free)} free; make room, or take fewer images, layers or taps"
        )
