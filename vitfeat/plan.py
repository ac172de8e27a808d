"""What the workflow plans: which tables there are, and what jobs will need.

Needs are for schedulers, so rather too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vitfeat.analysis.tables import PairTable
from vitfeat.models.shapes import Shape
from vitfeat.store.layout import Geometry, available_taps, plan_layout

# A Python process with torch and the worker processes that decode for it.
_TORCH_MB = 2500
_NUMPY_MB = 400

# Floating-point operations a second that one CPU core surely does.
_CORE_FLOPS = 1e10


def cka_tables(
    folder: Path, datasets: Iterable[str], tokens: Sequence[str], model_ids: Iterable[str]
) -> dict[str, list[PairTable]]:
    """Return by dataset the tables of all pairs, ``{folder}/{dataset}/{tokens}/{a}--{b}.csv``.

    Of two models the id that sorts first stands first, so that the order of a config does not
    change file names.
    """
    ids = sorted(model_ids)
    return {
        dataset: [
            PairTable(kind, a, b, folder / dataset / kind / f"{a}--{b}.csv")
            for kind in tokens
            for i, a in enumerate(ids)
            for b in ids[i:]
        ]
        for dataset in datasets
    }


def extraction_memory_mb(shape: Shape, batch_size: int, taps: Sequence[str], dtype: str) -> int:
    """Return MiB for weights, two units of rows in memory, and activations."""
    side = shape.image_size // shape.patch
    geometry = Geometry(
        layers=tuple(range(shape.depth)),
        width=shape.width,
        heads=shape.heads,
        grid=(side, side),
        has_cls=True,
        n_registers=0,
    )
    layout = plan_layout(geometry, available_taps(geometry, taps), 2**20, dtype)
    weights = shape.parameters * 4
    # On a GPU a unit holds a batch where that is larger than a block.
    unit = layout.bytes_per_block * max(1, batch_size // layout.block)
    activations = batch_size * shape.tokens * shape.width * 4 * 12
    return _TORCH_MB + int((2 * weights + 3 * unit + activations) / 2**20)


def extraction_minutes(shape: Shape, n_images: int, threads: int) -> int:
    """Return minutes on a CPU, threefold for safety, and ten to start."""
    seconds = n_images * shape.flops_per_image / (_CORE_FLOPS * threads)
    return 10 + int(3 * seconds / 60)


def gram_memory_mb(n_images: int) -> int:
    """Return MiB for two tiles of features (2 GiB) and the matrices of a layer."""
    return _NUMPY_MB + 2048 + int(5 * 8 * n_images**2 / 2**20)


def cka_memory_mb(n_images: int) -> int:
    """Return MiB for the blocks of rows of two files."""
    return _NUMPY_MB + 512 + int(64 * 8 * n_images / 2**20)
