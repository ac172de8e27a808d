"""What a model's taps give of noise: whatever they cannot do shows before anything is on disk."""

from __future__ import annotations

import torch
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.extraction.job import Job
from vitfeat.extraction.precision import autocast, matmul_precision
from vitfeat.extraction.sink import required_taps
from vitfeat.models.taps import LEAVE_OUT_ATTENTION, LEAVE_OUT_RESIDUAL, Taps
from vitfeat.store.arrays import RESIDUAL_TAPS


def probe(job: Job) -> None:
    """Push two images of noise through a model."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *job.backbone.image_size, generator=generator).to(job.device)
    wanted = required_taps(job.layout)
    if wanted & set(RESIDUAL_TAPS):
        wanted |= {*RESIDUAL_TAPS, "tokens"}
    with (
        matmul_precision(job.precision, job.device),
        autocast(job.precision, job.device),
        Taps(job.backbone, wanted, job.geometry.layers) as taps,
    ):
        taps.run(images, _Checks(job))


class _Checks:
    """Holds rows of attention to a sum of 1, and a block's input and branches to its output.

    A sink of :class:`vitfeat.models.taps.Taps`. It keeps the block's tensors themselves and no
    copies, so that a block that changes one of them afterwards does not add up: norms of sums are
    taken of the tensors, too.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parts: list[Tensor] = []

    def __call__(self, tap: str, position: int, _start: int, tensor: Tensor, /) -> None:
        """Check attention; keep a block's part, or compare the sum of all with its output."""
        if tap == "attention":
            self._check_rows(tensor)
        elif tap != "tokens":
            self._parts.append(tensor)
        elif self._parts:
            parts, self._parts = self._parts, []
            self._check_sum(position, parts, tensor)

    def _check_rows(self, attention: Tensor) -> None:
        # PyTorch's own module under autocast rounds its weights to 8 bits on a CPU.
        tolerance = 1e-3 if attention.dtype == torch.float32 else 2e-2
        one = torch.ones((), device=attention.device)
        if not torch.allclose(attention.float().sum(-1), one, atol=tolerance):
            raise ModelError(
                f"model {self._job.backbone.entry.id}: the rows of its attention do not sum to 1; "
                f"{LEAVE_OUT_ATTENTION}"
            )

    def _check_sum(self, position: int, parts: list[Tensor], output: Tensor) -> None:
        # Each of the two additions rounds once, in the coarsest type there is among the tensors.
        step = max(torch.finfo(t.dtype).eps for t in (*parts, output))
        bound = 2 * step * torch.stack([p.float().abs() for p in parts]).sum(0)
        error = (torch.stack([p.float() for p in parts]).sum(0) - output.float()).abs()
        # What is no number is refused with the image that it belongs to.
        if not ((error <= bound) | ~torch.isfinite(output)).all():
            layer, block = self._job.geometry.layers[position], self._job.backbone.blocks
            raise ModelError(
                f"model {self._job.backbone.entry.id}: what layer {layer} "
                f"({type(block[layer]).__name__}) gets and what its branches add do not make its "
                f"output, off by up to {error.max():.1g}; {LEAVE_OUT_RESIDUAL}"
            )
