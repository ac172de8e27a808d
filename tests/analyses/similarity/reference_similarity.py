"""Measures of similarity by brute force: from features, in float64, with SciPy, nothing of ours."""

from __future__ import annotations

import numpy as np
from scipy import linalg, stats
from scipy.spatial import distance

from tests.analyses.cka import reference_cka


def cka(x: np.ndarray, y: np.ndarray) -> float:
    return reference_cka.cka(x, y, reference_cka.hsic1)


def _scaled(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(axis=0)
    return x / np.linalg.norm(x)


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """1 - d^2 / 2 with the distance that is left after the best rotation has been applied."""
    x, y = _scaled(x), _scaled(y)
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    rotation, _ = linalg.orthogonal_procrustes(x, y)
    return float(1 - np.linalg.norm(x @ rotation - y) ** 2 / 2)


def rsa(x: np.ndarray, y: np.ndarray) -> float:
    return float(stats.spearmanr(distance.pdist(x), distance.pdist(y)).statistic)


def neighbours(x: np.ndarray, k: int) -> list[set[int]]:
    x = np.asarray(x, dtype=np.float64)
    found = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        others.sort(key=lambda j: (distance.cosine(x[i], x[j]), j))
        found.append(set(others[:k]))
    return found


def mutual_knn(x: np.ndarray, y: np.ndarray, k: int) -> float:
    pairs = zip(neighbours(x, k), neighbours(y, k), strict=True)
    return sum(len(a & b) / k for a, b in pairs) / len(x)


def leading(x: np.ndarray, variance: float) -> np.ndarray:
    """Features projected on as few principal directions as have the share of the variance."""
    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    count = next(r for r in range(1, len(s) + 1) if (s[:r] ** 2).sum() >= variance * (s**2).sum())
    return u[:, :count] * s[:count]


def svcca(x: np.ndarray, y: np.ndarray, variance: float) -> float:
    """Canonical correlations as roots of the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx."""
    x, y = leading(x, variance), leading(y, variance)
    if x.shape[1] > y.shape[1]:
        x, y = y, x
    sxx, syy, sxy = x.T @ x, y.T @ y, x.T @ y
    product = linalg.solve(sxx, sxy) @ linalg.solve(syy, sxy.T)
    roots = np.sqrt(np.clip(np.linalg.eigvals(product).real, 0, 1))
    return float(roots.mean())
