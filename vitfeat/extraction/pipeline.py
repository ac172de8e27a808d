"""The overlapped loop: decoding, forward pass, copy to the host and writing at the same time.

Decoding runs in worker processes, the forward pass in this thread (on a GPU) or on a pool of
threads with some images each (on a CPU), writing in a thread of its own. Memory holds two units of
rows, whatever the number of images.

On a CPU each thread runs whole images with single-threaded operations. That needs no barriers
inside the layers, and the numbers do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vitfeat.data.loader import normalise
from vitfeat.errors import ModelError
from vitfeat.extraction.buffers import Unit, check_finite, round_features
from vitfeat.extraction.job import Job
from vitfeat.extraction.precision import autocast, matmul_precision
from vitfeat.extraction.sink import BatchSink, required_taps
from vitfeat.extraction.tiling import Tiling
from vitfeat.models.taps import Taps
from vitfeat.store.layout import Layout
from vitfeat.store.writer import StoreWriter

# Images that a CPU thread takes at once: enough to fill its vector units, few enough for its cache.
_CPU_IMAGES = 4


@dataclass(frozen=True)
class Schedule:
    """Which rows stand in memory together (units of whole blocks), which are pushed together."""

    units: list[range]
    batches: list[list[range]]
    unit_rows: int

    @property
    def all_batches(self) -> list[range]:
        """All batches in their order."""
        return [b for unit in self.batches for b in unit]


def schedule(
    layout: Layout, missing: Sequence[int], batch_size: int, *, on_gpu: bool = True
) -> Schedule:
    """Cut the missing blocks into units and batches.

    Batches lie on a grid that does not depend on where an interrupted job stopped, so that the
    resumed store has the same bytes: within blocks where they are smaller than a block, over whole
    blocks where they are larger. A CPU takes a few images at a time whatever the batch, so that
    batches larger than a block would only cost it memory.
    """
    per_unit = max(1, batch_size // layout.block) if on_gpu else 1
    rows = per_unit * layout.block
    wanted = sorted({block // per_unit for block in missing})
    units = [range(u * rows, min((u + 1) * rows, layout.n_images)) for u in wanted]
    step = min(batch_size, rows) if per_unit == 1 else rows
    batches = [
        [range(a, min(a + step, unit.stop)) for a in range(unit.start, unit.stop, step)]
        for unit in units
    ]
    return Schedule(units, batches, min(rows, layout.n_images))


class _Runner:
    """Pushes batches through a hooked model into units.

    Without a pool of threads it pushes whole batches, as a GPU does. Images that do not fit into
    its memory are pushed again, half of them at a time, and so are all that come after.
    """

    def __init__(
        self,
        job: Job,
        models: _HookedModels,
        pool: ThreadPoolExecutor | None,
        note: Callable[[str], None],
    ) -> None:
        self._job = job
        self._models = models
        self._pool = pool
        self._note = note
        # Images that are known not to be too many at once.
        self._most: int | None = None

    def push(
        self,
        groups: Sequence[Tensor],
        unit: Unit,
        start: int,
        on_images: Callable[[int], None],
    ) -> None:
        """Push uint8 images (n, height, width, 3) of every group once; fill rows from `start` on.

        Images of a group are of one size. Whenever every thread has done its share, `on_images`
        takes how many images these were.
        """
        tasks = []
        for images in groups:
            size = (images.shape[1], images.shape[2])
            tiling = self._job.tiling(size)
            taps = self._models.taps(size if tiling is None else self._job.backbone.image_size)
            if self._pool is None:
                self._push_halving(images, unit, start, taps, tiling)
                on_images(len(images))
            else:
                step = 1 if self._job.geometry.ragged else _CPU_IMAGES
                for a in range(0, len(images), step):
                    some = images[a : a + step]
                    tasks.append(
                        self._pool.submit(self._push_cpu, some, unit, start + a, taps, tiling)
                    )
            start += len(images)
        for a in range(0, len(tasks), self._job.threads):
            done = [task.result() for task in tasks[a : a + self._job.threads]]
            unit.peaks += done
            on_images(sum(len(rows) for rows, _ in done))

    def _push_cpu(
        self, images: Tensor, unit: Unit, start: int, taps: Taps, tiling: Tiling | None
    ) -> tuple[range, dict[str, Tensor]]:
        rows = range(start, start + len(images))
        return rows, self._run(images, rows, unit.views(rows), taps, tiling)

    def _push_halving(
        self, images: Tensor, unit: Unit, start: int, taps: Taps, tiling: Tiling | None
    ) -> None:
        done = 0
        while done < len(images):
            some = images[done : done + (self._most or len(images))]
            try:
                self._push_gpu(some, unit, start + done, taps, tiling)
            except torch.OutOfMemoryError as error:
                if len(some) == 1:
                    raise ModelError(
                        f"model {self._job.backbone.entry.id}: not even one image fits into the "
                        f"memory of {self._job.device}; end what else uses it (nvidia-smi), take "
                        "fewer taps, or set extraction.precision: bf16"
                    ) from error
                self._most = len(some) // 2
            else:
                done += len(some)
                continue
            # Outside the handler, whose traceback holds on to the tensors of the pass.
            self._note(
                f"{len(some)} images at once do not fit into the memory of {self._job.device}: "
                f"pushed again {self._most} at a time, which changes numbers by rounding at most; "
                f"extraction.batch_size: {self._most} saves the attempt"
            )
            if self._job.device.type == "cuda":
                torch.cuda.empty_cache()

    def _push_gpu(
        self, images: Tensor, unit: Unit, start: int, taps: Taps, tiling: Tiling | None
    ) -> None:
        rows = range(start, start + len(images))
        device = self._job.device
        views = unit.views(rows)
        staged = {n: torch.empty_like(t, device=device) for n, t in views.items()}
        peaks = self._run(images.to(device, non_blocking=True), rows, staged, taps, tiling)
        for name, tensor in staged.items():
            views[name].copy_(tensor, non_blocking=True)
        unit.peaks.append((rows, peaks))
        if device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            unit.ready = event.synchronize

    def _run(
        self,
        images: Tensor,
        rows: range,
        arrays: dict[str, Tensor],
        taps: Taps,
        tiling: Tiling | None,
    ) -> dict[str, Tensor]:
        job = self._job
        sink = BatchSink(arrays, rows, job, tiling)
        with torch.inference_mode(), autocast(job.precision, job.device):
            windows = images if tiling is None else tiling.cut(images)
            taps.run(normalise(windows, job.backbone.mean, job.backbone.std), sink)
        return sink.peaks


class _HookedModels:
    """The model with its taps, and the same model for other sizes of input, loaded once each."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self._job = job
        self._stack = stack
        self._taps: dict[tuple[int, int], Taps] = {}

    def taps(self, size: tuple[int, int]) -> Taps:
        """Return the taps of the model for inputs of a (height, width)."""
        if size not in self._taps:
            job = self._job
            backbone = job.backbone
            if size != backbone.image_size:
                if backbone.at_size is None:
                    raise ModelError(
                        f"model {backbone.entry.id}: cannot be loaded for images of {size[0]} x "
                        f"{size[1]} pixels; set passes: tiled"
                    )
                backbone = backbone.at_size(size)
            taps = Taps(backbone, required_taps(job.layout), job.geometry.layers)
            self._taps[size] = self._stack.enter_context(taps)
        return self._taps[size]


@contextmanager
def _open_runner(job: Job, note: Callable[[str], None]) -> Iterator[_Runner]:
    """Give a hooked model with the threads that run it; put everything back afterwards."""
    with ExitStack() as stack:
        # Of the whole process: once around all threads.
        stack.enter_context(matmul_precision(job.precision, job.device))
        pool = None
        if not job.on_gpu:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
            pool = stack.enter_context(
                ThreadPoolExecutor(job.threads, initializer=torch.set_num_threads, initargs=(1,))
            )
        yield _Runner(job, _HookedModels(job, stack), pool, note)


def run_pipeline(
    job: Job,
    writer: StoreWriter,
    plan: Schedule,
    batches: Iterator[Sequence[Tensor]],
    on_images: Callable[[int], None],
    note: Callable[[str], None],
) -> None:
    """Push every batch of a plan once and write every missing block.

    ``batches`` gives for each of the plan's uint8 (n, height, width, 3) of every run of images of
    one size; ``note`` takes what happened on the way that may change numbers.
    """
    missing = set(writer.missing_blocks())

    def write(unit: Unit) -> None:
        unit.ready()
        if job.keep_bits is not None:
            round_features(unit, job.keep_bits)
        # Behind it: rounding up may leave the type's range.
        check_finite(unit, job)
        first = unit.rows.start // job.layout.block
        for block in range(first, -(-unit.rows.stop // job.layout.block)):
            if block in missing:
                rows = job.layout.rows(block)
                writer.write_block(block, unit.part(rows), forward_images=len(rows))

    # One unit is filled while the other is written. Taking a unit again waits for its writing,
    # and raises what went wrong there.
    units = [Unit.allocate(job.layout, plan.unit_rows, pinned=job.on_gpu) for _ in range(2)]
    writing: list[Future[None] | None] = [None, None]
    with ThreadPoolExecutor(1) as background, _open_runner(job, note) as runner:
        for number, rows in enumerate(plan.units):
            unit, before = units[number % 2], writing[number % 2]
            if before is not None:
                before.result()
            unit.begin(rows)
            for batch in plan.batches[number]:
                runner.push(next(batches), unit, batch.start, on_images)
            writing[number % 2] = background.submit(write, unit)
        for last in writing:
            if last is not None:
                last.result()
