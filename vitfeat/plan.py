"""What the workflow plans: which tables there are, and what jobs will need.

Needs are for schedulers, so rather too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vitfeat.models.shapes import Shape

# A Python process with torch and the worker processes that decode for it.
_TORCH_MB = 2500
_NUMPY_MB = 400

# Floating-point operations a second that one CPU core surely does.
_CORE_FLOPS = 1e10


def cka_tables(
    folder: Path, datasets: Iterable[str], tokens: Sequence[str], model_ids: Iterable[str]
) -> dict[str, list[Path]]:
    """Return by dataset the tables of all pairs, ``{folder}/{dataset}/{tokens}/{a}--{b}.csv``.

    Of two models the id that sorts first stands first, so that the order of a config does not
    change file names.
    """
    ids = sorted(model_ids)
    return {
        dataset: [
            folder / dataset / kind / f"{a}--{b}.csv"
            for kind in tokens
            for i, a in enumerate(ids)
            for b in ids[i:]
        ]
        for dataset in datasets
    }


def extraction_memory_mb(shape: Shape, batch_size: int) -> int:
    """Return MiB for weights, two units of rows in memory, and activations."""
    weights = shape.parameters * 4
    row = shape.depth * shape.tokens * shape.width * 4
    unit = max(batch_size * row, 64 * 2**20)
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
