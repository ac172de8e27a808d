"""Linear CKA by brute force: straight from features and formulas, in float64, nothing of ours.

Matrices are written out (H, zeroed diagonals, vectors of ones), so that the code reads like the
papers and shares no shortcut with vitfeat.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def raw_gram(features: np.ndarray) -> np.ndarray:
    """K_ij = x_i . x_j, one product at a time."""
    x = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    return np.array([[np.dot(first, second) for second in x] for first in x])


def hsic0(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Kornblith et al. 2019: tr(KHLH) / (n - 1)^2."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h) / (n - 1) ** 2)


def hsic1(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. 2012, eq. 5, and Nguyen et al. 2021, eq. 3."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    return float(
        (
            np.trace(k @ l)
            + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ l @ one)
        )
        / (n * (n - 3))
    )


def hsic1_loops(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The U-statistic itself: the mean of the kernel over all ordered quadruples (Song, eq. 4)."""
    n = len(k)
    total, count = 0.0, 0
    for i in range(n):
        for j in set(range(n)) - {i}:
            for q in set(range(n)) - {i, j}:
                for r in set(range(n)) - {i, j, q}:
                    total += k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
                    count += 1
    return total / count


Hsic = Callable[[np.ndarray, np.ndarray], float]


def cka(x: np.ndarray, y: np.ndarray, hsic: Hsic) -> float:
    k, l = raw_gram(x), raw_gram(y)  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def minibatch(x: np.ndarray, y: np.ndarray, batches: list[np.ndarray], *, scale: bool) -> float:
    """Nguyen et al. 2021, eq. 2; with ``scale`` as the published code of Walmer et al. 2023."""
    sums = np.zeros(3)
    for batch in batches:
        k, l = raw_gram(x[batch]), raw_gram(y[batch])  # noqa: E741
        if scale:
            k = (k - k.min()) / (k.max() - k.min())
            l = (l - l.min()) / (l.max() - l.min())  # noqa: E741
        sums += hsic1(k, l), hsic1(k, k), hsic1(l, l)
    kl, kk, ll = sums / len(batches)
    return kl / np.sqrt(kk * ll)
