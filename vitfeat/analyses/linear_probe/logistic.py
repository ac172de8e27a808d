"""Multinomial logistic regression with an L2 penalty, by L-BFGS in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Evaluate = Callable[[Floats, Floats], tuple[float, Floats, Floats]]
"""Of weights and biases: the mean cross entropy, and its gradients by both."""

TOLERANCE = 1e-5
"""Converged is a fit whose gradient has no entry beyond this."""

MAX_ITERATIONS = 1000

# Of a block of images in float64 with its logits.
_BLOCK_BYTES = 32 * 2**20
_GPU_BLOCK_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Standard:
    """How features are standardised: ``(x - mean) / scale``.

    Attributes
    ----------
    mean, scale
        float64 (channel,): mean and standard deviation (divided by the number of images) of each
        channel over the images that are learnt from; scale is 1 where a channel is constant.
    """

    mean: Floats
    scale: Floats

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardise float (image, channel) in float64, rounded to float32."""
        out = np.empty(features.shape, dtype=np.float32)
        for rows in _blocks(len(features), 16 * features.shape[1], _BLOCK_BYTES):
            np.divide(features[rows] - self.mean, self.scale, out=out[rows], casting="same_kind")
        return out


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted classifier of standardised features."""

    # weights, bias: float64 (class, channel) and (class,).
    weights: Floats
    bias: Floats
    iterations: int  # of L-BFGS
    gradient: float  # largest entry of the objective's gradient, in absolute value

    @property
    def converged(self) -> bool:
        """Whether no entry of the gradient is beyond :data:`TOLERANCE`."""
        return self.gradient <= TOLERANCE

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """Return float64 (image, class) of standardised features (image, channel)."""
        return np.asarray(features.astype(np.float64) @ self.weights.T + self.bias)


def standard(features: NDArray[np.float32]) -> Standard:
    """Find how features (image, channel) are standardised; see :class:`Standard`."""
    n, width = features.shape
    blocks = list(_blocks(n, 16 * width, _BLOCK_BYTES))
    mean = sum((features[b].sum(axis=0, dtype=np.float64) for b in blocks), np.zeros(width)) / n
    if not np.isfinite(mean).all():
        raise AnalysisError(
            "linear probe: features of training images are not finite; extract them again"
        )
    squares = (np.square(features[b] - mean).sum(axis=0) for b in blocks)
    scale = np.sqrt(sum(squares, np.zeros(width)) / n)
    # Sums of a float32 are exact in float64: a constant channel deviates by nothing.
    return Standard(mean, np.where(scale == 0, 1.0, scale))


def fit_logistic(
    features: NDArray[np.float32],
    labels: Ints,
    n_classes: int,
    penalty: float,
    *,
    start: Fit | None = None,
    max_iterations: int = MAX_ITERATIONS,
    threads: int = 1,
    device: str = "cpu",
) -> Fit:
    r"""Minimise the mean cross entropy and the penalty.

    .. math:: \frac1n \sum_i - \ln \frac{\exp(w_{y_i} \cdot x_i + b_{y_i})}
       {\sum_c \exp(w_c \cdot x_i + b_c)} + \frac{\lambda}{2} \sum_c \lVert w_c \rVert^2

    over :math:`w` (class, channel) and :math:`b` (class,), which is not penalised; computed in
    float64. This is scikit-learn's LogisticRegression with :math:`C = 1 / (\lambda n)`.

    Parameters
    ----------
    features
        (image, channel), standardised.
    labels
        int64 (image,), from 0 to ``n_classes`` - 1.
    penalty
        :math:`\lambda`, above 0.
    start
        Where to begin; at zero by default. The minimum is the same.
    max_iterations
        L-BFGS ends here, converged or not.
    threads
        Threads that take images, on a CPU; their number changes no bit.
    device
        ``cpu``, or a torch device such as ``cuda``.
    """
    from scipy.optimize import minimize

    if not penalty > 0:
        raise AnalysisError(f"linear probe: found penalty {penalty}; it must be above 0")
    width = features.shape[1]
    split = n_classes * width
    first = np.zeros(split + n_classes)
    if start is not None:
        first[:split], first[split:] = start.weights.reshape(-1), start.bias

    with _evaluator(features, labels, n_classes, threads, device) as evaluate:

        def objective(flat: Floats) -> tuple[float, Floats]:
            weights = flat[:split].reshape(n_classes, width)
            loss, by_weights, by_bias = evaluate(weights, flat[split:])
            gradient = np.concatenate([(by_weights + penalty * weights).reshape(-1), by_bias])
            return loss + penalty / 2 * float(np.square(weights).sum()), gradient

        minimum: Any = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            # Only the gradient says that a minimum is reached, not a small step.
            options={
                "maxiter": max_iterations,
                "maxfun": 20 * max_iterations,
                "gtol": TOLERANCE,
                "ftol": 0,
                "maxls": 50,
            },
        )
    return Fit(
        weights=minimum.x[:split].reshape(n_classes, width),
        bias=minimum.x[split:],
        iterations=int(minimum.nit),
        gradient=float(np.abs(minimum.jac).max()),
    )


@contextmanager
def _evaluator(
    features: NDArray[np.float32], labels: Ints, n_classes: int, threads: int, device: str
) -> Iterator[Evaluate]:
    """Give the function that computes cross entropy and gradients, and what it needs."""
    if device != "cpu":
        yield _on_torch(features, labels, n_classes, device)
        return
    n, width = features.shape
    blocks = list(_blocks(n, 8 * (width + 3 * n_classes), _BLOCK_BYTES))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:

        def evaluate(weights: Floats, bias: Floats) -> tuple[float, Floats, Floats]:
            def part(rows: slice) -> tuple[float, Floats, Floats]:
                return _cross_entropy(features[rows], labels[rows], weights, bias)

            loss, by_weights, by_bias = 0.0, np.zeros_like(weights), np.zeros_like(bias)
            # In the order of the blocks, whichever is done first.
            for some, of_weights, of_bias in pool.map(part, blocks):
                loss += some
                by_weights += of_weights
                by_bias += of_bias
            return loss / n, by_weights / n, by_bias / n

        yield evaluate


def _cross_entropy(
    features: NDArray[np.float32], labels: Ints, weights: Floats, bias: Floats
) -> tuple[float, Floats, Floats]:
    """Sum the cross entropy of some images, and its gradients."""
    x = features.astype(np.float64)
    shares = x @ weights.T
    shares += bias
    shares -= shares.max(axis=1, keepdims=True)
    own = (np.arange(len(labels)), labels)
    loss = -float(shares[own].sum())
    np.exp(shares, out=shares)
    sums = shares.sum(axis=1, keepdims=True)
    loss += float(np.log(sums).sum())
    shares /= sums
    shares[own] -= 1
    return loss, shares.T @ x, shares.sum(axis=0)


def _on_torch(features: NDArray[np.float32], labels: Ints, n_classes: int, device: str) -> Evaluate:
    """As on the CPU, with all features on a torch device."""
    import torch  # here only: it costs seconds that no job on the CPU should pay

    held = torch.from_numpy(features).to(device)
    classes = torch.from_numpy(labels).to(device)
    n, width = features.shape
    blocks = list(_blocks(n, 8 * (width + 3 * n_classes), _GPU_BLOCK_BYTES))

    def evaluate(weights: Floats, bias: Floats) -> tuple[float, Floats, Floats]:
        w, b = (torch.tensor(v, device=device) for v in (weights, bias))
        loss = torch.zeros((), dtype=torch.float64, device=device)
        by_weights, by_bias = torch.zeros_like(w), torch.zeros_like(b)
        for rows in blocks:
            x = held[rows].to(torch.float64)
            logs = torch.log_softmax(x @ w.T + b, dim=1)
            own = classes[rows, None]
            loss -= logs.gather(1, own).sum()
            shares = logs.exp_().scatter_add_(1, own, torch.full_like(own, -1, dtype=w.dtype))
            by_weights += shares.T @ x
            by_bias += shares.sum(0)
        by_weights, by_bias = by_weights / n, by_bias / n
        return float(loss) / n, by_weights.cpu().numpy(), by_bias.cpu().numpy()

    return evaluate


def _blocks(n: int, row_bytes: int, max_bytes: int) -> Iterator[slice]:
    rows = max(1, max_bytes // row_bytes)
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))
