"""From the taps of one batch into a store's arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import torch
from torch import Tensor

from vitfeat.extraction.job import Job
from vitfeat.extraction.summary import summarise, summarise_images
from vitfeat.extraction.tiling import Tiling
from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS, SUMMARY_GROUP
from vitfeat.store.layout import Layout

# The raw taps that a stored tap is made of; any other is stored as it is.
_MADE_OF = {
    "cls": ("tokens",),
    "registers": ("tokens",),
    "spatial": ("tokens",),
    "regions": ("tokens",),
    SUMMARY_GROUP: ("attention",),
    "attention_mean": ("attention",),
    "attention_centre": ("attention",),
    NORMS_GROUP: RESIDUAL_TAPS,
}


def required_taps(layout: Layout) -> set[str]:
    """Return the raw taps that a layout's arrays are made of."""
    return {raw for a in layout.arrays for raw in _MADE_OF.get(a.tap, (a.tap,))}


class BatchSink:
    """Puts the tapped tensors of one batch where they belong in a unit.

    A sink of :class:`vitfeat.models.taps.Taps`.

    Parameters
    ----------
    arrays
        By array name: (image, ...) on the model's device, to be filled; of an array of some images
        only those of the batch.
    rows
        Which rows of the store the batch is.
    job
        The model's sizes and device, and the store's arrays.
    tiling
        The windows that the batch's images are pushed through the model in; None for whole images.

    Attributes
    ----------
    peaks
        By what was looked at, a raw tap or ``residual_norms``: (layer, 2), the least and greatest
        value of the images that something is stored of.
    """

    def __init__(
        self,
        arrays: Mapping[str, Tensor],
        rows: range,
        job: Job,
        tiling: Tiling | None = None,
    ) -> None:
        self._arrays = arrays
        self._geometry = job.geometry
        self._on_gpu = job.on_gpu
        self._tiling = tiling
        self._weights = []
        if job.regions is not None:
            weights = (torch.from_numpy(job.regions.weights[row]) for row in rows)
            self._weights = [w.to(job.device, non_blocking=True) for w in weights]
        # By tap of some images: where in the batch these stand.
        self._kept = {
            a.tap: [a.row_of(e) - rows.start for e in job.layout.entries(a, rows)]
            for a in job.layout.arrays
            if a.dims[0].endswith("_image")
        }
        taps = {a.tap for a in job.layout.arrays}
        self._norms = NORMS_GROUP in taps
        # By what is looked at: the images that something is stored of, None for all.
        self._looked_at: dict[str, list[int] | None] = {}
        for tap in sorted(taps):
            for name in (NORMS_GROUP,) if tap == NORMS_GROUP else _MADE_OF.get(tap, (tap,)):
                before, kept = self._looked_at.get(name, []), self._kept.get(tap)
                both = None if before is None or kept is None else sorted({*before, *kept})
                self._looked_at[name] = both
        self.peaks = {
            name: torch.zeros(len(job.geometry.layers), 2, device=job.device)
            for name in self._looked_at
        }
        # What the block that the pass is inside of got.
        self._block_input: Tensor | None = None

    def __call__(self, tap: str, position: int, start: int, tensor: Tensor, /) -> None:
        """Copy, cast and summarise one tensor; remember its extremes."""
        if tap == "tokens" and self._tiling is not None:
            # A window's prefix tokens are of the window, and belong to no image.
            tensor = self._tiling.join(tensor[:, self._geometry.n_prefix :])
        if tap in self._looked_at:
            self._look(tap, position, start, tensor)
        if tap == "attention":
            self._attention(start, position, tensor)
        elif tap == "tokens":
            self._tokens("", start, position, tensor)
        else:
            if tap in self._looked_at:
                self._tokens(f"{tap}/", start, position, tensor)
            if self._norms:
                self._take_norms(tap, start, position, tensor)

    def _look(self, name: str, position: int, start: int, tensor: Tensor) -> None:
        # Before the cast: what float16 cannot hold is infinite behind it. NaN shows in both.
        _, tensor = _chosen(self._looked_at[name], start, tensor)
        if len(tensor):
            extremes = torch.stack(torch.aminmax(tensor)).float()
            peaks = self.peaks[name][position]
            peaks[0] = torch.minimum(peaks[0], extremes[0])
            peaks[1] = torch.maximum(peaks[1], extremes[1])

    def _put(self, name: str, start: int, position: int, tensor: Tensor) -> None:
        """Write one layer of an array for the images from `start` on, as far as it holds them."""
        rows, tensor = _chosen(self._kept.get(name.partition("/")[0]), start, tensor)
        if len(tensor):
            self._arrays[name][rows, position] = tensor

    def _tokens(self, group: str, start: int, position: int, tokens: Tensor) -> None:
        g = self._geometry
        if f"{group}cls" in self._arrays:
            self._put(f"{group}cls", start, position, tokens[:, 0])
        if f"{group}registers" in self._arrays:
            registers = tokens[:, int(g.has_cls) : g.n_prefix]
            self._put(f"{group}registers", start, position, registers)
        spatial = tokens if self._tiling is not None else tokens[:, g.n_prefix :]
        if f"{group}spatial" in self._arrays:
            if g.ragged:
                # The images of a batch are of one size, and all of them are kept.
                self._arrays["spatial"][:, position] = spatial.flatten(0, 1)
            else:
                grid = spatial.reshape(len(spatial), *g.grid, g.width)
                self._put(f"{group}spatial", start, position, grid)
        if not group and "regions" in self._arrays:
            pooled = [w @ t.float() for w, t in zip(self._weights, spatial, strict=True)]
            self._arrays["regions"][:, position] = torch.cat(pooled)

    def _attention(self, start: int, position: int, attention: Tensor) -> None:
        if "attention" in self._arrays:
            self._put("attention", start, position, attention)
        if "attention_mean" in self._arrays:
            rows, chosen = _chosen(self._kept.get("attention_mean"), start, attention)
            if len(chosen):
                mean = chosen.mean(1, dtype=torch.float32)
                self._arrays["attention_mean"][rows, position] = mean
        if "attention_centre" in self._arrays:
            (rows_of_grid, columns), n_prefix = self._geometry.grid, self._geometry.n_prefix
            centre = n_prefix + rows_of_grid // 2 * columns + columns // 2
            self._put("attention_centre", start, position, attention[:, :, centre])
        rows, chosen = _chosen(self._kept.get(SUMMARY_GROUP), start, attention)
        out = {
            name.removeprefix(f"{SUMMARY_GROUP}/"): tensor[rows, position]
            for name, tensor in self._arrays.items()
            if name.startswith(f"{SUMMARY_GROUP}/")
        }
        if not out or not len(chosen):
            return
        g = self._geometry
        if self._on_gpu:
            for name, value in summarise(chosen, g.n_prefix, g.grid).items():
                out[name].copy_(value)
        else:
            summarise_images(chosen.float(), g.n_prefix, g.grid, out)

    def _take_norms(self, tap: str, start: int, position: int, tensor: Tensor) -> None:
        """Write the norms that a raw tap gives: in float32, of what is not rounded yet."""
        if tap == "block_input":
            self._block_input = tensor
            self._norm("attn_skip", start, position, tensor)
        elif tap == "attn_branch":
            assert self._block_input is not None
            self._norm("attn_branch", start, position, tensor)
            skip = self._block_input.float() + tensor.float()
            self._norm("mlp_skip", start, position, skip)
            self._block_input = None
        else:
            self._norm("mlp_branch", start, position, tensor)

    def _norm(self, name: str, start: int, position: int, tensor: Tensor) -> None:
        norms = torch.linalg.vector_norm(tensor, dim=-1, dtype=torch.float32)
        self._look(NORMS_GROUP, position, start, norms)
        self._put(f"{NORMS_GROUP}/{name}", start, position, norms)


def _chosen(kept: list[int] | None, start: int, tensor: Tensor) -> tuple[slice, Tensor]:
    """Return where a tensor's kept images stand among all kept ones, and what it has of them."""
    if kept is None:
        return slice(start, start + len(tensor)), tensor
    rows = slice(bisect_left(kept, start), bisect_left(kept, start + len(tensor)))
    images = [image - start for image in kept[rows]]
    return rows, tensor if len(images) == len(tensor) else tensor[images]
