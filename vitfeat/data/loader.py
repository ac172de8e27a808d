"""Batches of views, made in parallel from the images of an index, and as a model takes them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from vitfeat.data.index import Index, Row
from vitfeat.data.indexed import view_of
from vitfeat.data.views import View
from vitfeat.errors import DataError


class _Batches(Dataset[list[torch.Tensor] | DataError]):
    """Makes the batch for a list of images, in whatever process it is asked."""

    def __init__(self, root: Path, view: View) -> None:
        self._root = root
        self._view = view

    def __getitem__(self, images: list[Row]) -> list[torch.Tensor] | DataError:
        """Give uint8 (n, H, W, 3) of every run of images of one size, or the error.

        The error is returned because DataLoader would rewrite what a worker raises.
        """
        groups = []
        try:
            for size, some in groupby(images, self._size):
                run = list(some)
                group = torch.empty((len(run), *size, 3), dtype=torch.uint8)
                for place, image in enumerate(run):
                    group[place] = torch.from_numpy(view_of(image, self._root, self._view))
                groups.append(group)
        except DataError as error:
            return error
        return groups

    def _size(self, image: Row) -> tuple[int, int]:
        return self._view.size_of(*image.seen_size)


class _Requests:
    """The images of each batch, made when the loader asks."""

    def __init__(self, index: Index, batches: Sequence[range]) -> None:
        self._index = index
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Row]]:
        for rows in self._batches:
            # All that a worker is sent: the index stays here.
            yield [self._index.row(row) for row in rows]


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def load_batches(
    index: Index,
    root: Path,
    view: View,
    batches: Sequence[range],
    *,
    workers: int,
    pin: bool = False,
) -> Iterator[list[torch.Tensor]]:
    """Read, check, decode and view the images of an index, batch by batch.

    `batches` are the rows that make up each; yields of each, in their order, uint8 (n, H, W, 3) of
    every run of images whose views have one size, which most views have for all. 0 workers load in
    the caller's process; each makes two batches ahead. `pin` puts batches into pinned
    memory, for copies to a GPU. Raises DataError if an image has changed since it was indexed, is
    gone, or does not decode; or if a worker was killed.
    """
    for rows in batches:
        if len(rows) and (min(rows[0], rows[-1]) < 0 or max(rows[0], rows[-1]) >= len(index)):
            raise IndexError(f"{rows} leaves the index, which has {len(index)} rows")
    workers = min(workers, len(batches))
    loader = DataLoader(
        _Batches(root, view),
        batch_size=None,
        sampler=_Requests(index, batches),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=_context() if workers else None,
        worker_init_fn=_one_thread,
        pin_memory=pin,
        # Its own, as the loader would else draw from torch's global generator.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        for batch in iterator:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except (RuntimeError, EOFError, ConnectionError) as error:
        if not _tells_of_death(error):
            raise
        raise DataError(
            "a process that loads images was killed, most often for want of memory or of space in "
            "/dev/shm; use fewer workers or a smaller batch"
        ) from error
    finally:
        # The workers end with their iterator, which an error's traceback would keep alive.
        del iterator


def _tells_of_death(error: Exception) -> bool:
    """Tell whether DataLoader failed because one of its workers is gone.

    It says so itself when it waits for the worker's batch; a batch that was announced already is
    fetched from the worker, whose end of the connection is then closed.
    """
    if isinstance(error, RuntimeError):
        return "exited unexpectedly" in str(error) or "killed by signal" in str(error)
    # One that a living worker raised is passed on under these words.
    return "in DataLoader worker process" not in str(error)


def _context() -> multiprocessing.context.BaseContext:
    """Choose how workers start: by the fork server, which has torch imported already.

    Not by fork, torch's default: the caller runs threads (OpenMP, CUDA, Zarr's), and a forked
    child may find one of their locks held for ever. Measured on 2 cores, until the first batch of 2
    workers: fork 0.1 s; fork server 2.1 s once in a process and 0.05 s from then on; spawn 2.6 s
    every time.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def normalise(batch: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale bytes (B, H, W, 3) to [0, 1], subtract the mean, divide by the standard deviation.

    Returns float32, contiguous, (B, 3, H, W), on the batch's device; on a CPU bit for bit
    torchvision's ``ToTensor`` and ``Normalize``.
    """
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 of shape (B, H, W, 3), found {batch.dtype} of {tuple(batch.shape)}"
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"expected three means and three stds above 0, found {mean} and {std}")
    channels = batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    centre, scale = (
        torch.tensor(numbers, dtype=torch.float32, device=batch.device).view(3, 1, 1)
        for numbers in (mean, std)
    )
    return channels.sub_(centre).div_(scale)
