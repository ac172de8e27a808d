"""J, F and their statistics from the definitions: loops over pixels and frames, in float64."""

from __future__ import annotations

import math

import numpy as np

Pixel = tuple[int, int]


def outline(mask: np.ndarray) -> set[Pixel]:
    """Pixels unlike the one on the right, below or both; only what is in the frame is compared."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            others = []
            if x + 1 < width:
                others.append(mask[y, x + 1])
            if y + 1 < height:
                others.append(mask[y + 1, x])
            if x + 1 < width and y + 1 < height:
                others.append(mask[y + 1, x + 1])
            if any(other != mask[y, x] for other in others):
                found.add((y, x))
    return found


def dilated(pixels: set[Pixel], radius: int, shape: tuple[int, int]) -> set[Pixel]:
    """All pixels of the frame in a disk around one of these."""
    disk = [
        (y, x)
        for y in range(-radius, radius + 1)
        for x in range(-radius, radius + 1)
        if x * x + y * y <= radius * radius
    ]
    return {
        (y + down, x + right)
        for y, x in pixels
        for down, right in disk
        if 0 <= y + down < shape[0] and 0 <= x + right < shape[1]
    }


def boundary(truth: np.ndarray, predicted: np.ndarray) -> float:
    height, width = truth.shape
    radius = math.ceil(0.008 * math.sqrt(height**2 + width**2))
    true, guess = outline(truth), outline(predicted)
    if not true and not guess:
        precision, recall = 1.0, 1.0
    elif not guess:
        precision, recall = 1.0, 0.0
    elif not true:
        precision, recall = 0.0, 1.0
    else:
        precision = len(guess & dilated(true, radius, truth.shape)) / len(guess)
        recall = len(true & dilated(guess, radius, truth.shape)) / len(true)
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def region(truth: np.ndarray, predicted: np.ndarray) -> float:
    both = either = 0
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            both += int(truth[y, x] and predicted[y, x])
            either += int(truth[y, x] or predicted[y, x])
    return both / either if either else 1.0


def decay(values: list[float]) -> float:
    """Mean of the first of four bins minus that of the last, as the official script bins frames."""
    edges = np.linspace(1, len(values), 5)
    at = [int(np.round(edge + 1e-10)) - 1 for edge in edges]
    first, last = values[at[0] : at[1] + 1], values[at[3] : at[4] + 1]
    return sum(first) / len(first) - sum(last) / len(last)
