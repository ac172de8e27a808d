r"""How well the most attended tokens of a query cover annotated objects.

A row of attention :math:`a` over the keys of the grid is renormalised, :math:`p_k = a_k / \sum_j
a_j`. Its tokens are taken in descending order until their sum reaches the mass :math:`m`:

.. math:: K = \{k_1, \dots, k_s\}, \quad p_{k_1} \ge p_{k_2} \ge \dots, \quad
    s = \min \{t : \sum_{i \le t} p_{k_i} \ge m\}

That is what DINO's ``visualize_attention.py`` keeps, which drops tokens in ascending order while
their sum is at most :math:`1 - m`: a token stays if and only if those before it in descending order
sum to less than :math:`m`. Equal values, whose order is left open there, are taken by their index
here, the lower one first. Sums are float64, and :math:`m` counts as reached 1e-9 below it, so
that rounding decides nothing: of ten equal values with m = 0.6, six are kept.

A row that gives nothing to the grid keeps nothing.

References
----------
M. Caron et al.: Emerging properties in self-supervised vision transformers. ICCV 2021 (figure 4).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Bool = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_REACHED = 1e-9

# Pairs of counts that the chance level is summed for at once.
_CHANCE_BYTES = 32 * 2**20


def kept_tokens(attention: NDArray[Any], mass: float) -> Bool:
    """Keep the most attended tokens up to a mass, as the module's docstring defines it.

    `attention` is (..., key), to the keys of the grid, from 0, of any scale; it is not changed.
    `mass` is the share of each row's sum that is kept, above 0 and at most 1.

    Returns bool (..., key).
    """
    if not 0 < mass <= 1:
        raise AnalysisError(f"mass {mass}: must be above 0 and at most 1")
    if not attention.shape[-1]:
        raise AnalysisError("attention without keys: give the keys of the grid")
    ascending = np.sort(attention, axis=-1)
    # NaN is sorted last, and compares as false.
    if not ((ascending[..., 0] >= 0) & np.isfinite(ascending[..., -1])).all():
        raise AnalysisError(
            "attention is negative or not finite: extract the model's features anew"
        )
    values = ascending[..., ::-1]
    sums = np.cumsum(values, axis=-1, dtype=np.float64)
    total = sums[..., -1:]
    missing = (sums < (mass - _REACHED) * total).sum(-1, keepdims=True)
    # Rounding of the last sums must not ask for more than there is.
    number = np.where(total > 0, np.minimum(missing + 1, attention.shape[-1]), 0)
    least = np.take_along_axis(values, np.maximum(number - 1, 0), axis=-1)
    kept: Bool = (attention >= least) & (number > 0)
    _drop_ties(kept, attention, least, number)
    return kept


def _drop_ties(kept: Bool, attention: NDArray[Any], least: NDArray[Any], number: Counts) -> None:
    """Where more tokens have the least kept value than there is room for, keep the first ones."""
    rows = kept.sum(-1) > number[..., 0]
    values, bound = attention[rows], least[rows]
    tied = values == bound
    room = number[rows] - (values > bound).sum(-1, keepdims=True)
    kept[rows] &= ~tied | (np.cumsum(tied, axis=-1) <= room)


def merged(attention: NDArray[Any], *, renormalised: bool = False) -> Floats:
    """Merge heads into one map: the mean of their rows.

    `attention` is (..., head, key), to the keys of the grid. Where `renormalised`, each head's row
    is divided by its sum first; else heads that give more to the grid weigh more.

    Returns float64 (..., key); not renormalised itself.
    """
    rows = attention.astype(np.float64)
    if renormalised:
        total = rows.sum(-1, keepdims=True)
        rows = np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)
    return np.asarray(rows.mean(-2))


def iou(kept: Bool, foreground: Bool) -> Floats:
    r"""Intersection of two sets of tokens over their union, :math:`|K \cap F| / |K \cup F|`.

    Of bool (..., key) float64 (...), from 0 to 1; NaN where both are empty.
    """
    both = (kept & foreground).sum(-1)
    either = kept.sum(-1) + foreground.sum(-1) - both
    with np.errstate(invalid="ignore"):
        return np.asarray(both / either)


def chance_iou(n_kept: NDArray[Any], n_foreground: NDArray[Any], n_tokens: int) -> Floats:
    r"""Return the expected IoU of so many tokens chosen at random.

    With k of N tokens kept and F of them foreground the intersection i is hypergeometric:

    .. math:: \sum_i \frac{\binom{F}{i} \binom{N - F}{k - i}}{\binom{N}{k}} \frac{i}{k + F - i}

    `n_kept` and `n_foreground`, (...), are k and F, of one shape, from 0 to N.

    Returns float64 (...); 0 where either is 0.
    """
    pairs = np.stack([np.asarray(n_kept), np.asarray(n_foreground)], axis=-1)
    codes, back = np.unique(pairs[..., 0] * (n_tokens + 1) + pairs[..., 1], return_inverse=True)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n_tokens + 1)))])
    expected = np.empty(len(codes))
    step = max(1, _CHANCE_BYTES // (8 * (n_tokens + 1)))
    for start in range(0, len(codes), step):
        k, f = np.divmod(codes[start : start + step, None], n_tokens + 1)
        expected[start : start + step] = _expected(k, f, n_tokens, logs)
    return expected[back].reshape(pairs.shape[:-1])


def _expected(k: Counts, f: Counts, n: int, logs: Floats) -> Floats:
    """Sum over the intersection, for columns of k and f; `logs` are those of factorials."""
    i = np.arange(n + 1)
    # Intersections that cannot be stand for the nearest that can, and do not count.
    both = np.clip(i, np.maximum(0, k + f - n), np.minimum(k, f))

    def log_choose(of: Any, some: Any) -> Any:
        return logs[of] - logs[some] - logs[of - some]

    share = np.exp(log_choose(f, both) + log_choose(n - f, k - both) - log_choose(n, k))
    terms = np.where(both == i, share * both / np.maximum(k + f - both, 1), 0)
    return np.asarray(terms.sum(-1))


class Overlaps(NamedTuple):
    """IoU of one query in one layer, image by image."""

    heads: Floats  # (image, head)
    merged: Floats  # (image,): of the mean of the heads' rows
    # (image,): of the mean of the heads' rows, each renormalised first, as the research code merges
    # the rows of CLS and of the centre token.
    merged_paper: Floats
    n_kept: Counts  # int64 (image, head): tokens that each head keeps

    @property
    def best_head(self) -> int:
        """Number of the head with the highest mean over images; the first of equal ones."""
        return int(self.heads.mean(0).argmax())

    @property
    def best_per_image(self) -> Floats:
        """(image,): the highest of the heads in each image; no single head reaches its mean."""
        return np.asarray(self.heads.max(-1))


def overlaps(attention: NDArray[Any], foreground: Bool, mass: float) -> Overlaps:
    """Compare a layer's attention (image, head, key) with the foreground (image, key).

    ``mass`` is that of :func:`kept_tokens`.
    """
    if attention.ndim != 3 or foreground.shape != (attention.shape[0], attention.shape[2]):
        raise AnalysisError(
            f"attention of shape {attention.shape} and foreground of shape {foreground.shape}: "
            "needed are (image, head, key) and (image, key)"
        )
    kept = kept_tokens(attention, mass)
    together, apart = merged(attention), merged(attention, renormalised=True)
    return Overlaps(
        heads=iou(kept, foreground[:, None]),
        merged=iou(kept_tokens(together, mass), foreground),
        merged_paper=iou(kept_tokens(apart, mass), foreground),
        n_kept=kept.sum(-1),
    )


def joined(parts: list[Overlaps]) -> Overlaps:
    """Put the images of several parts behind one another."""
    return Overlaps._make(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
