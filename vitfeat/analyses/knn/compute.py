"""Classes of images by weighted votes of their nearest training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.numerics.neighbours import Read, nearest_images
from vitfeat.text import plural

Ints = NDArray[np.int64]

TOPS = (1, 5)
"""Classes with the most votes, among which the true one counts as found."""

NO_VOTES = -1
"""Instead of a rank: the class has no votes."""

# Votes that are counted at once.
_VOTES = 2**20


def knn_ranks(
    test: Read,
    truth: Ints,
    train: Read,
    labels: Ints,
    neighbours: Sequence[int],
    *,
    temperature: float = 0.07,
    max_bytes: int = 2 * 2**30,
    threads: int = 1,
    device: str = "cpu",
) -> Ints:
    """Rank the true class of each test image by votes, for several numbers of neighbours.

    One search (:func:`vitfeat.numerics.neighbours.nearest_images`) for the largest number serves
    all.

    Features are (image, channel). `truth` and `labels`, int64 (image,), are classes of test and
    training images, any whole numbers; a true one may be of no training image.

    Returns int64 (k, test image); see :func:`votes_ranks`.
    """
    _check_neighbours(neighbours, len(labels))
    ranks = np.empty((len(neighbours), len(truth)), dtype=np.int64)
    lists = nearest_images(
        test,
        len(truth),
        train,
        len(labels),
        max(neighbours),
        max_bytes=max_bytes,
        threads=threads,
        device=device,
    )
    for some in lists:
        for rows in _runs(*some.image.shape):
            own = slice(some.start + rows.start, some.start + rows.stop)
            ranks[:, own] = votes_ranks(
                labels[some.image[rows]], some.similarity[rows], truth[own], neighbours, temperature
            )
    return ranks


def votes_ranks(
    classes: Ints,
    similarity: NDArray[np.floating],
    truth: Ints,
    neighbours: Sequence[int],
    temperature: float = 0.07,
) -> Ints:
    r"""Rank the true classes by the votes of sorted neighbours.

    Of the k nearest training images :math:`j` with cosines :math:`s_j`, class c gets

    .. math:: v_c = \sum_{j \le k,\; y_j = c} \exp(s_j / \tau)

    votes, and classes without a neighbour among the k get no rank at all. Of classes with equal
    votes the one whose nearest neighbour is nearer comes first. Votes are summed in float64, the
    nearest first, and all divided by that of the nearest neighbour, so that small temperatures do
    not overflow; ranks do not change by that.

    Returns int64 (k, image): how many classes have more votes than the true one, 0 where it wins;
    :data:`NO_VOTES` where it has none.

    Parameters
    ----------
    classes
        int64 (image, neighbour): classes of the neighbours, the nearest first.
    similarity
        float (image, neighbour): their cosines, descending.
    truth
        int64 (image,): true classes.
    neighbours
        Numbers of neighbours k, each at most as many as there are.
    temperature
        :math:`\tau`, above 0.

    References
    ----------
    Z. Wu et al.: Unsupervised feature learning via non-parametric instance discrimination. CVPR
    2018, section 3.4; M. Caron et al.: Emerging properties in self-supervised vision transformers.
    ICCV 2021.
    """
    n, most = classes.shape
    _check_neighbours(neighbours, most)
    if not temperature > 0:
        raise AnalysisError(f"k-NN: found temperature {temperature}; it must be above 0")
    cosine = np.asarray(similarity, dtype=np.float64)
    votes = np.exp((cosine - cosine[:, :1]) / temperature)
    # Neighbours of a class side by side, the nearest first: a segment for each image and class.
    order = np.argsort(classes, axis=1, kind="stable")
    grouped = np.take_along_axis(classes, order, axis=1)
    begins = np.ones((n, most), dtype=np.bool_)
    begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    segment = np.cumsum(begins) - 1
    at = np.flatnonzero(begins)
    image, nearest_of = at // most, order.reshape(-1)[at]
    true = grouped.reshape(-1)[at] == truth[image]
    sorted_votes = np.take_along_axis(votes, order, axis=1)
    ranks = np.empty((len(neighbours), n), dtype=np.int64)
    for rank, k in zip(ranks, neighbours, strict=True):
        # bincount adds one by one: equal votes have equal sums, however many neighbours follow.
        sums = np.bincount(segment, np.where(order < k, sorted_votes, 0).reshape(-1))
        voted = nearest_of < k
        own = np.flatnonzero(true & voted)
        own_sum, own_nearest = np.full(n, np.inf), np.full(n, -1)
        own_sum[image[own]], own_nearest[image[own]] = sums[own], nearest_of[own]
        level = sums == own_sum[image]
        before = (sums > own_sum[image]) | (level & (nearest_of < own_nearest[image]))
        rank[:] = np.bincount(image[before], minlength=n)
        rank[own_nearest < 0] = NO_VOTES
    return ranks


def share_within(ranks: Ints, top: int) -> float:
    """Return the share of images whose true class has one of the first ranks; negative is none."""
    return float(np.count_nonzero((ranks >= 0) & (ranks < top)) / len(ranks))


def _check_neighbours(neighbours: Sequence[int], n: int) -> None:
    """Refuse no numbers of neighbours, and such that are not from 1 to n."""
    if not neighbours or min(neighbours) < 1 or max(neighbours) > n:
        raise AnalysisError(
            f"k-NN: found k = {', '.join(map(str, neighbours)) or 'nothing'}; with "
            f"{plural(n, 'training image')} it goes from 1 to {n}"
        )


def _runs(n: int, width: int) -> Iterator[slice]:
    rows = max(1, _VOTES // width)
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))
