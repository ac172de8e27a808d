"""What jobs will need.

Needs are for schedulers, so rather too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.analyses.needs import CORE_FLOPS, TORCH_MB
from vitfeat.models.shapes import Shape
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import available_taps, plan_layout
from vitfeat.store.limits import spread

# Floating-point operations a second that a GPU surely does.
_GPU_FLOPS = 5e12
# Seconds to decode an image on one core.
_DECODING = 0.01
# What is asked for a job of several that share an extraction; it takes about a third of that.
_JOB_MINUTES = 8 * 60


def extraction_memory_mb(
    shape: Shape,
    batch_size: int,
    taps: Sequence[str],
    dtype: str,
    limits: Mapping[str, int] | None = None,
    n_images: int = 2**20,
    enlarged: float = 1.0,
) -> int:
    """Return MiB for weights, two units of rows in memory, and activations.

    ``enlarged`` is how many tokens images have over those of the model's own size.
    """
    side = shape.image_size // shape.patch
    geometry = Geometry(
        layers=tuple(range(shape.depth)),
        width=shape.width,
        heads=shape.heads,
        grid=(side, side),
        has_cls=True,
        n_registers=0,
    )
    kept = {}
    for tap, count in (limits or {}).items():
        if count < n_images:
            kept[tap] = spread(count, n_images)
    # What is pooled under regions is little beside what it is pooled from.
    stored = available_taps(geometry, [t for t in taps if t != "regions"]) or ("cls",)
    layout = plan_layout(geometry, stored, n_images, dtype, kept)
    weights = shape.parameters * 4
    # On a GPU a unit holds a batch where that is larger than a block.
    unit = enlarged * layout.bytes_of(layout.block * max(1, batch_size // layout.block))
    activations = enlarged * batch_size * shape.tokens * shape.width * 4 * 12
    return TORCH_MB + int((2 * weights + 3 * unit + activations) / 2**20)


def extraction_seconds(
    shape: Shape, n_images: int, threads: int, enlarged: float = 1.0, gpu: bool = False
) -> float:
    """Return seconds of a pass on a CPU or a GPU, which are surely enough."""
    flops = _GPU_FLOPS if gpu else CORE_FLOPS * threads
    # A GPU waits for the slower of the two; on a CPU decoding is little.
    return n_images * max(enlarged * shape.flops_per_image / flops, _DECODING / threads)


def extraction_minutes(
    shape: Shape, n_images: int, threads: int, enlarged: float = 1.0, gpu: bool = False
) -> int:
    """Return minutes on a CPU or a GPU, threefold for safety, and ten to start."""
    return 10 + int(3 * extraction_seconds(shape, n_images, threads, enlarged, gpu) / 60)


def extraction_jobs(minutes: int) -> int:
    """Return how many jobs share an extraction of so many minutes, as planned for one job."""
    return max(1, -(-minutes // _JOB_MINUTES))


def sealing_minutes(n_images: int) -> int:
    """Return minutes to put together and seal what several jobs have written, and ten to start."""
    return 10 + n_images // 20_000
