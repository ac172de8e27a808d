"""Blocks of a store in memory: filled by the forward pass, checked and emptied by the writer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.extraction.job import Job
from vitfeat.store.arrays import EXACT_TAPS
from vitfeat.store.layout import Layout
from vitfeat.store.rounding import largest, round_mantissa

# The taps that a tensor's bad number is looked for in; any other is its own.
_TAPS_OF = {
    "tokens": ("cls", "registers", "spatial", "regions"),
    "attention": ("attention", "attention_mean", "attention_centre"),
}


@dataclass
class Unit:
    """Rows of all arrays, as they will stand in the store."""

    layout: Layout
    # By array name: (row, ...) on the CPU, pinned where a GPU fills them; of an array of some
    # images only those.
    arrays: dict[str, Tensor]
    rows: range = range(0)
    # By rows of the store that were pushed together: the least and greatest value by what was
    # looked at and layer, (layer, 2) each.
    peaks: list[tuple[range, dict[str, Tensor]]] = field(default_factory=list)
    ready: Callable[[], None] = lambda: None  # waits until the device has filled the arrays

    @classmethod
    def allocate(cls, layout: Layout, n_rows: int, *, pinned: bool) -> Unit:
        """Make room for any run of so many rows, cut from row 0 on."""
        return cls(
            layout,
            {
                a.name: torch.empty(
                    (layout.most_entries(a, n_rows), *a.shape),
                    dtype=getattr(torch, a.dtype),
                    pin_memory=pinned,
                )
                for a in layout.arrays
            },
        )

    def begin(self, rows: range) -> None:
        """Use the room for other rows."""
        self.rows, self.peaks = rows, []

    def views(self, rows: range) -> dict[str, Tensor]:
        """Return the arrays' parts for some of the store's rows."""
        parts = {}
        for spec in self.layout.arrays:
            first = self.layout.entries(spec, self.rows).start
            entries = self.layout.entries(spec, rows)
            parts[spec.name] = self.arrays[spec.name][entries.start - first : entries.stop - first]
        return parts

    def part(self, rows: range) -> dict[str, NDArray[Any]]:
        """Return the arrays of some of the store's rows."""
        return {name: tensor.numpy() for name, tensor in self.views(rows).items()}


def round_features(unit: Unit, keep_bits: int) -> None:
    """Round what is stored in the features' type to so many bits of mantissa."""
    arrays = unit.part(unit.rows)
    for spec in unit.layout.arrays:
        if spec.tap not in EXACT_TAPS:
            round_mantissa(arrays[spec.name], keep_bits)


def check_finite(unit: Unit, job: Job) -> None:
    """Refuse numbers that are no numbers, or that the store's type cannot hold."""
    limit = largest(job.dtype, job.keep_bits)
    for rows, peaks in unit.peaks:
        for looked_at, by_layer in peaks.items():
            for position, (low, high) in enumerate(by_layer.tolist()):
                # NaN compares false with everything.
                if not (low >= -limit and high <= limit):
                    peak = max(abs(low), abs(high))
                    error = _bad_number(unit, job, looked_at, position, rows, peak)
                    if error is not None:
                        raise error


def _bad_number(
    unit: Unit, job: Job, looked_at: str, position: int, rows: range, peak: float
) -> ModelError | None:
    """Find which image and tap the bad number belongs to, and put it into words.

    It stands as NaN or inf in the unit, unless only its summary is kept: then the images that were
    pushed together are named.
    """
    first, last = rows[0], rows[-1]
    tap, found = looked_at, False
    parts = unit.views(rows)
    taps = _TAPS_OF.get(looked_at, (looked_at,))
    for spec in (a for a in unit.layout.arrays if a.tap in taps):
        values = parts[spec.name][:, position].float().flatten(1)
        bad = (~torch.isfinite(values).all(1)).nonzero()
        if len(bad):
            entry = unit.layout.entries(spec, rows)[int(bad[0])]
            first = last = spec.row_of(entry)
            tap, found = spec.tap, True
            break
    ids = [job.image_ids[row] for row in sorted({first, last})]
    place = (
        f"model {job.backbone.entry.id}, image {' to '.join(ids)}, layer "
        f"{job.geometry.layers[position]}, tap {tap}"
    )
    if math.isfinite(peak):
        if not found:
            return None  # rounded down; or of tokens that are not stored, or float32
        bits = "" if job.keep_bits is None else f" of {job.keep_bits} bits"
        return ModelError(
            f"{place}: a value of magnitude {peak:.4g} does not fit {job.dtype}{bits} (at most "
            f"{largest(job.dtype, job.keep_bits):g}); set extraction.dtype: float32"
        )
    return ModelError(f"{place}: the features hold NaN or inf; nothing is stored of them")
