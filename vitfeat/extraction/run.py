"""Extraction of one model over one dataset into one store."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import Tensor

from vitfeat.data.annotations import RegionRow
from vitfeat.data.index import Index
from vitfeat.data.loader import load_batches
from vitfeat.data.views import in_words
from vitfeat.device import choose_device
from vitfeat.disk import files_below
from vitfeat.errors import StoreError
from vitfeat.extraction.job import Job
from vitfeat.extraction.pipeline import Schedule, run_pipeline, schedule
from vitfeat.extraction.probe import probe
from vitfeat.extraction.request import resolve
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.store.create import Rows
from vitfeat.store.finished import finished_store, tidy
from vitfeat.store.paths import Place, partial_path, work_path
from vitfeat.store.writer import open_writer
from vitfeat.text import duration, plural, size

logger = logging.getLogger(__name__)


# Bytes of image files that are decoded sooner than a process has started.
_SMALL_DATASET = 8 * 2**20

# Blocks that a line names.
_SHOWN = 8


def extract(
    backbone: Backbone,
    index: Index,
    root: Path,
    out: Place,
    settings: Settings,
    *,
    on_images: Callable[[int], None] = lambda _: None,
    on_total: Callable[[int], None] = lambda _: None,
    batches: Callable[[Schedule], Iterator[Tensor]] | None = None,
    annotated: Sequence[RegionRow] | None = None,
) -> dict[str, Any] | None:
    """Push every image through the model once and store what the taps give.

    A finished store of the same request is kept as it is; an interrupted one is gone on with.

    Returns the sealed store's manifest; None where the job has only a part of the store to fill.

    Parameters
    ----------
    index, root
        The images, and the folder that their ids are relative to.
    on_images
        Called first with the number of images that an interrupted store holds already, then with
        that of those that were just pushed.
    on_total
        Called before that with the number of images of this job.
    batches
        Gives uint8 batches (n, height, width, 3) in the place of decoding the files.
    annotated
        The dataset's table of regions, for the tap ``regions``.
    """
    started = time.monotonic()
    device = choose_device(settings.device)
    asked = resolve(backbone, index, settings, annotated)
    finished, line = finished_store(out, asked.request, settings.replace, repair=settings.repair)
    if line:
        logger.info(line)
    if finished is not None:
        tidy(out)
        return finished

    notes = [*backbone.notes, *index.notes, *asked.notes]
    for note in (*backbone.notes, *index.notes):
        logger.info(note)
    for note in asked.notes:
        logger.warning(note)
    logger.info(f"images are normalised: {backbone.normalisation}")
    layout = asked.layout(len(index), settings.dtype)
    backbone.module.to(device)
    job = Job(
        backbone=backbone,
        geometry=asked.geometry,
        layout=layout,
        device=device,
        dtype=settings.dtype,
        keep_bits=settings.keep_bits,
        precision=settings.precision,
        threads=settings.threads or os.cpu_count() or 1,
        image_ids=index.image_id,
        view=asked.view,
        regions=asked.regions,
    )
    probe(job)
    _announce(job, out, asked.request)
    logger.info(f"view: {in_words(asked.view.describe())}")
    rows = Rows(
        index.image_id,
        index.label,
        index.classes,
        index.skipped,
        asked.grids,
        None if asked.regions is None else asked.regions.numbers,
    )

    def is_finished() -> bool:
        # Another job may have sealed it while this one looked at its model.
        nonlocal finished
        if settings.repair:
            return False
        finished, _ = finished_store(out, asked.request, settings.replace)
        return finished is not None

    with open_writer(
        out,
        layout,
        asked.geometry,
        rows,
        asked.request,
        backbone.entry.id,
        weights=backbone.weights,
        final_norm=backbone.final_norm,
        normalised_by=backbone.normalised_by,
        notes=notes,
        replace=settings.replace or settings.repair,
        part=settings.part,
        is_finished=is_finished,
    ) as writer:
        if writer is None:
            logger.info(f"{out}: another job has just finished it: nothing to do")
            tidy(out)
            return finished

        def add_note(line: str) -> None:
            logger.warning(line)
            writer.note(line)

        missing, blocks = writer.missing_blocks(), len(writer.blocks)
        if settings.part is not None:
            logger.info(_part_in_words(settings.part, writer.blocks, layout.n_blocks))
        if writer.damaged:
            logger.warning(
                f"{plural(len(writer.damaged), 'block')} of the interrupted store "
                f"({', '.join(map(str, writer.damaged[:_SHOWN]))}"
                f"{', ...' if len(writer.damaged) > _SHOWN else ''}) not as written, by their "
                "checksums: pushed again"
            )
        if len(missing) < blocks:
            logger.info(
                f"{'repairing the store' if settings.repair else 'resuming an interrupted store'}: "
                f"{len(missing)} of {plural(blocks, 'block')} to do"
            )
        n_images = sum(len(layout.rows(block)) for block in writer.blocks)
        on_total(n_images)
        on_images(n_images - sum(len(layout.rows(block)) for block in missing))
        plan = schedule(layout, missing, settings.batch_size, on_gpu=job.on_gpu)
        if batches is None:
            source: Iterator[Sequence[Tensor]] = load_batches(
                index,
                root,
                asked.view,
                plan.all_batches,
                workers=_workers(job, index, settings.workers),
                pin=job.on_gpu,
            )
        else:
            source = ([batch] for batch in batches(plan))
        with closing(source):  # type: ignore[type-var]
            run_pipeline(job, writer, plan, source, on_images, add_note)
        if settings.part is not None:
            logger.info(
                f"{out}: {plural(n_images, 'image')} in {duration(time.monotonic() - started)}"
            )
            return None
        sealed = writer.seal()
    logger.info(
        f"{out}: {plural(len(index), 'image')} in {duration(time.monotonic() - started)}, "
        f"{size(sum(a['bytes'] for a in sealed['arrays'].values()))}"
    )
    return sealed


def _part_in_words(part: tuple[int, int], blocks: range, n_blocks: int) -> str:
    number, of = part
    if not blocks:
        return f"job {number} of {of}: no block is left for it, of {n_blocks}"
    return f"job {number} of {of}: blocks {blocks.start} to {blocks.stop - 1} of {n_blocks}"


def _workers(job: Job, index: Index, asked: int | str) -> int:
    """Choose how many processes decode.

    A GPU leaves the CPU to them. Beside a forward pass on the CPU one process keeps four threads
    fed, and none is worth its start when the images are a few small files.
    """
    if isinstance(asked, int):
        return asked
    if int(index.n_bytes.sum()) < _SMALL_DATASET:
        return 0
    return max(1, job.threads - 1 if job.on_gpu else job.threads // 4)


def _announce(job: Job, out: Place, request: Mapping[str, Any]) -> None:
    """Say what is to come, and refuse what the disk cannot hold.

    The size is that of the uncompressed numbers: what compression saves is not known before. How
    long it takes is said as soon as images are done: nothing before them tells it.
    """
    layout = job.layout
    kept = {a.tap: layout.length(a) for a in layout.arrays if a.dims[0].endswith("_image")}
    taps = [f"{t} (of {plural(kept[t], 'image')})" if t in kept else t for t in request["taps"]]
    logger.info(
        f"{out}: {plural(layout.n_images, 'image')} x {len(job.geometry.layers)} layers, taps "
        f"{', '.join(taps)}, at most {size(layout.n_bytes)}, on {job.device}"
    )
    path = work_path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = sum(n_bytes for _, n_bytes in files_below(partial_path(path)))
    free = shutil.disk_usage(path.parent).free
    # Of a remote store shards go as soon as they are uploaded.
    shards = layout.n_bytes if path is out else 2 * layout.bytes_of(layout.block)
    # What blocks have of shards that reach over them stands beside them until these are whole.
    needed = shards + layout.pieces_bytes - done
    if needed > free:
        raise StoreError(
            f"{out}: the store needs up to {size(needed)}, the disk has "
            f"{size(free)} free; make room, or take fewer images, layers or taps"
        )
