"""Blocks of a store in memory: filled by the forward pass, checked and emptied by the writer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.extract.job import Job
from vitfeat.extract.summary import summarise
from vitfeat.store.layout import SUMMARY_GROUP, Layout

# Smallest magnitude that float16 rounds to infinity: half a step above its largest number.
_OVERFLOW = {"float16": 65520.0, "float32": math.inf}


@dataclass
class Unit:
    """Rows of all arrays, as they will stand in the store.

    Attributes
    ----------
    rows
        Which rows of the store these are.
    arrays
        By array name: (row, ...) on the CPU, pinned where a GPU fills them.
    peaks
        For each part of the rows (start, stop, peaks): the least and greatest value by raw tap and
        layer, (tap, layer, 2).
    ready
        Waits until the device has filled the arrays.
    """

    arrays: dict[str, Tensor]
    rows: range = range(0)
    peaks: list[tuple[int, int, dict[str, Tensor]]] = field(default_factory=list)
    ready: Callable[[], None] = lambda: None

    @classmethod
    def allocate(cls, layout: Layout, n_rows: int, *, pinned: bool) -> Unit:
        """Make room for some rows."""
        return cls(
            {
                a.name: torch.empty(
                    (n_rows, *a.shape), dtype=getattr(torch, a.dtype), pin_memory=pinned
                )
                for a in layout.arrays
            }
        )

    def begin(self, rows: range) -> None:
        """Use the room for other rows."""
        self.rows, self.peaks = rows, []

    def part(self, rows: range) -> dict[str, NDArray[Any]]:
        """Return the arrays of some of the store's rows."""
        start = rows.start - self.rows.start
        return {n: t[start : start + len(rows)].numpy() for n, t in self.arrays.items()}


class BatchSink:
    """Puts the tapped tensors of one batch where they belong in a unit.

    A sink of :class:`vitfeat.models.taps.Taps`.

    Parameters
    ----------
    arrays
        By array name: (image, ...) on the model's device, to be filled.
    job
        The model's sizes and device.
    """

    def __init__(self, arrays: Mapping[str, Tensor], job: Job) -> None:
        self._arrays = arrays
        self._geometry = job.geometry
        self._summaries = {
            name.removeprefix(f"{SUMMARY_GROUP}/"): tensor
            for name, tensor in arrays.items()
            if name.startswith(f"{SUMMARY_GROUP}/")
        }
        self._on_gpu = job.on_gpu
        self.peaks = {
            tap: torch.zeros(len(job.geometry.layers), 2, device=job.device)
            for tap in ("tokens", "attention")
        }

    def __call__(self, tap: str, position: int, start: int, tensor: Tensor, /) -> None:
        """Copy, cast and summarise one tensor; remember its extremes."""
        # Before the cast: what float16 cannot hold is infinite behind it. NaN shows in both.
        extremes = torch.stack(torch.aminmax(tensor)).float()
        peaks = self.peaks[tap][position]
        peaks[0] = torch.minimum(peaks[0], extremes[0])
        peaks[1] = torch.maximum(peaks[1], extremes[1])
        rows = slice(start, start + len(tensor))
        if tap == "tokens":
            self._tokens(rows, position, tensor)
        else:
            self._attention(rows, position, tensor)

    def _tokens(self, rows: slice, position: int, tokens: Tensor) -> None:
        g, arrays = self._geometry, self._arrays
        if "cls" in arrays:
            arrays["cls"][rows, position] = tokens[:, 0]
        if "registers" in arrays:
            arrays["registers"][rows, position] = tokens[:, int(g.has_cls) : g.n_prefix]
        if "spatial" in arrays:
            arrays["spatial"][rows, position] = tokens[:, g.n_prefix :].view(
                len(tokens), *g.grid, g.width
            )

    def _attention(self, rows: slice, position: int, attention: Tensor) -> None:
        g = self._geometry
        if "attention" in self._arrays:
            self._arrays["attention"][rows, position] = attention
        if not self._summaries:
            return
        out = {name: tensor[rows, position] for name, tensor in self._summaries.items()}
        if self._on_gpu:
            for name, value in summarise(attention, g.n_prefix, g.grid).items():
                out[name].copy_(value)
        else:
            # Here and not above: Numba takes half a second to import.
            from vitfeat.extract.kernel import summarise_images

            summarise_images(attention.float(), g.n_prefix, g.grid, out)


def check_finite(unit: Unit, job: Job) -> None:
    """Refuse numbers that are no numbers, or that the store's type cannot hold.

    Raises
    ------
    ModelError
        Naming the model, the image, the layer and the tap.
    """
    limit = _OVERFLOW[job.dtype]
    for start, stop, peaks in unit.peaks:
        for raw, by_layer in peaks.items():
            for position, (low, high) in enumerate(by_layer.tolist()):
                # NaN compares false with everything.
                if not (low > -limit and high < limit):
                    peak = max(abs(low), abs(high))
                    error = _bad_number(unit, job, raw, position, slice(start, stop), peak)
                    if error is not None:
                        raise error


def _bad_number(
    unit: Unit, job: Job, raw: str, position: int, rows: slice, peak: float
) -> ModelError | None:
    """Find which image and tap the bad number belongs to, and put it into words.

    It stands as NaN or inf in the unit, unless only its summary is kept: then the images that were
    pushed together are named.
    """
    names = ("cls", "registers", "spatial") if raw == "tokens" else ("attention",)
    tap, first, last = raw, rows.start, rows.stop - 1
    for name in (n for n in names if n in unit.arrays):
        values = unit.arrays[name][rows, position].float().flatten(1)
        bad = ~torch.isfinite(values).all(1)
        if bad.any():
            tap, first = name, rows.start + int(bad.nonzero()[0])
            last = first
            break
    ids = [job.image_ids[unit.rows.start + row] for row in sorted({first, last})]
    place = (
        f"model {job.backbone.entry.id}, image {' to '.join(ids)}, layer "
        f"{job.geometry.layers[position]}, tap {tap}"
    )
    if math.isfinite(peak):
        if tap == "tokens":
            return None  # only of tokens that are not stored
        return ModelError(
            f"{place}: a value of magnitude {peak:.4g} does not fit {job.dtype} (at most 65504); "
            "set extraction.dtype: float32"
        )
    return ModelError(f"{place}: the features hold NaN or inf; nothing is stored of them")
