"""Nearest places in upsampled feature maps by plain loops, in float64."""

from __future__ import annotations

from math import floor, sqrt

import numpy as np

Box = tuple[float, float, float, float]


def mixed(tokens: np.ndarray, u: float, v: float) -> np.ndarray:
    """The bilinear mix of four tokens at row u and column v, counted between their centres."""
    rows, columns = tokens.shape[:2]
    i, j = min(floor(u), rows - 1), min(floor(v), columns - 1)
    below, right = min(i + 1, rows - 1), min(j + 1, columns - 1)
    a, b = u - i, v - j
    top = (1 - b) * tokens[i, j] + b * tokens[i, right]
    bottom = (1 - b) * tokens[below, j] + b * tokens[below, right]
    return (1 - a) * top + a * bottom


def token_place(at: float, start: float, stop: float, n_tokens: int) -> float:
    place = (at + 0.5 - start) / ((stop - start) / n_tokens) - 0.5
    return min(max(place, 0.0), n_tokens - 1.0)


def feature(tokens: np.ndarray, box: Box, x: float, y: float) -> np.ndarray:
    left, top, right, bottom = box
    rows, columns = tokens.shape[:2]
    u, v = token_place(y, top, bottom, rows), token_place(x, left, right, columns)
    return mixed(np.asarray(tokens, dtype=np.float64), u, v)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = sqrt(float(a @ a)) * sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths else 0.0


def cosines(
    query: np.ndarray, tokens: np.ndarray, box: Box, size: tuple[int, int]
) -> dict[tuple[int, int], float]:
    """The cosine of every pixel whose centre is in the image and in the box, by row and column."""
    left, top, right, bottom = box
    return {
        (y, x): cosine(np.asarray(query, dtype=np.float64), feature(tokens, box, x, y))
        for y in range(size[1])
        for x in range(size[0])
        if left <= x + 0.5 <= right and top <= y + 0.5 <= bottom
    }
