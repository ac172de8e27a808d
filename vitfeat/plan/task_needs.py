"""What jobs of the tasks will need of a machine; as in needs.py, rather too much."""

from __future__ import annotations

from collections.abc import Sequence

from vitfeat.models.shapes import Shape

# A Python process, and one that has torch for a GPU.
_PROCESS_MB = 2500

# Floating-point operations a second that one CPU core surely does, and numbers that are read.
_CORE_FLOPS = 1e10
_READ_NUMBERS = 5e7
_DAY_MINUTES = 24 * 60


def knn_memory_mb(shape: Shape, n_test: int, neighbours: int, threads: int) -> int:
    """Return MiB for test images with their neighbours (2 GiB at most), and for pieces."""
    lists = n_test * (4 * shape.width + 8 * neighbours) / 2**20
    # Lists become images and similarities; a thread has a product, candidates and votes.
    return _PROCESS_MB + int(3 * min(lists, 2048)) + 200 + 100 * threads


def knn_minutes(
    shape: Shape,
    n_test: int,
    n_train: int,
    features: Sequence[str],
    one_layer: bool,
    threads: int,
) -> int:
    """Return minutes to read features and compare them, threefold for safety, and ten to start.

    At most a day: before its index is there, the size of a dataset is a guess.
    """
    layers = 1 if one_layer else shape.depth
    work = len(features) * 2 * n_test * n_train * shape.width
    seconds = work / (_CORE_FLOPS * threads) + _reading(shape, n_test + n_train, features)
    return min(10 + int(3 * layers * seconds / 60), _DAY_MINUTES)


def linear_probe_memory_mb(shape: Shape, n_test: int, n_train: int, threads: int) -> int:
    """Return MiB for the training images of a layer, two copies of them, and for pieces."""
    features = 4 * (3 * n_train + n_test) * shape.width / 2**20
    # Gradients and the past steps of the largest classifier, of a thousand classes.
    steps = 8 * (25 + threads) * 1000 * shape.width / 2**20
    return _PROCESS_MB + int(features + steps) + 200 * threads


def linear_probe_minutes(
    shape: Shape,
    n_train: int,
    features: Sequence[str],
    penalties: int,
    one_layer: bool,
    threads: int,
) -> int:
    """Return minutes to fit a classifier of each penalty and the last one, for every layer.

    Threefold for safety, and ten to start; at most a day.
    """
    layers = 1 if one_layer else shape.depth
    # As many images a class as in ImageNet's validation set; few fits need 200 iterations.
    classes = min(n_train // 50 + 1, 1000)
    work = len(features) * (penalties + 1) * 200 * 4 * n_train * classes * shape.width
    seconds = work / (_CORE_FLOPS * threads) + _reading(shape, n_train, features)
    return min(10 + int(3 * layers * seconds / 60), _DAY_MINUTES)


def _reading(shape: Shape, n_images: int, features: Sequence[str]) -> float:
    """Return seconds to read a layer's features: of means, all their tokens."""
    tokens = sum(shape.tokens if kind == "mean" else 1 for kind in features)
    return n_images * tokens * shape.width / _READ_NUMBERS
