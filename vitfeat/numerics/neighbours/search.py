"""Search of the nearest images by cosine: features read in pieces, lists in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vitfeat.errors import AnalysisError
from vitfeat.numerics.neighbours import on_cpu, on_torch
from vitfeat.numerics.neighbours.keys import LAST, images_of, similarities_of
from vitfeat.text import plural

Read = Callable[[int, int], NDArray[Any]]
"""``read(start, stop)`` gives the features of images start:stop, float (stop - start, channel)."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of some queries, the nearest first."""

    start: int  # number of the first of these queries
    image: NDArray[np.int64]  # int64 (query, k): images of the bank
    similarity: NDArray[np.float32]  # float32 (query, k): their cosine with the query, descending


def nearest_images(
    queries: Read,
    n_queries: int,
    bank: Read,
    n_bank: int,
    k: int,
    *,
    max_bytes: int = 2 * 2**30,
    threads: int = 1,
    device: str = "cpu",
) -> Iterator[Neighbours]:
    r"""Find the k images of a bank that are nearest to each query.

    Nearness is the cosine :math:`\hat x \cdot \hat y` with :math:`\hat x = x / \lVert x \rVert`:
    norms in float64, unit vectors and products in float32. A zero vector has cosine 0 with all.
    The search is exact: every query meets every image of the bank. Of images of equal similarity
    the one that stands first in the bank is nearer, so that lists are unique; they depend on
    neither ``max_bytes`` nor ``threads``. Similarities that differ by less than float32 products
    can tell (about 1e-6) may come in either order.

    Parameters
    ----------
    queries, bank
        Features of images. Those of the bank are read once in ascending order for as many queries
        as fit into memory, all of them mostly, and by another thread than the caller's.
    max_bytes
        Bound on the queries and lists in memory (2 GiB are 600,000 queries of 384 channels with 200
        neighbours); one block of queries is the least.
    device
        ``cpu``, or a torch device such as ``cuda``.

    Yields
    ------
    Neighbours
        Of all queries, some at a time, in order.
    """
    if not 1 <= k <= n_bank <= LAST + 1:
        raise AnalysisError(
            f"nearest neighbours: {plural(k, 'neighbour')} among {plural(n_bank, 'image')}; there "
            f"must be at least one, no more than images, and no more images than {LAST + 1:,}"
        )
    if not n_queries:
        return
    width = _unit(queries, 0, 1, "queries").shape[1]
    where = on_cpu if device == "cpu" else on_torch
    tile = where.TILE
    # Whole blocks: products of other shapes may round otherwise.
    run = max(1, max_bytes // ((4 * width + 8 * k) * where.ROWS)) * where.ROWS
    with ThreadPoolExecutor(1) as reading:
        for start in range(0, n_queries, run):
            x = _unit(queries, start, min(start + run, n_queries), "queries")
            # Every product has one thread, and the caller its own again before the next run.
            with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
                search = (
                    on_cpu.CpuSearch(x, k, pool)
                    if device == "cpu"
                    else on_torch.TorchSearch(x, k, device)
                )
                following = reading.submit(_unit, bank, 0, min(tile, n_bank), "bank")
                for first in range(0, n_bank, tile):
                    features = following.result()
                    if (then := first + tile) < n_bank:
                        following = reading.submit(
                            _unit, bank, then, min(then + tile, n_bank), "bank"
                        )
                    search.add(features, first)
                keys = search.sorted_keys()
            yield Neighbours(start, images_of(keys), similarities_of(keys))


def _unit(read: Read, start: int, stop: int, whose: str) -> NDArray[np.float32]:
    """Read features and divide each image's by its norm; zero vectors stay."""
    features = np.asarray(read(start, stop), dtype=np.float32)
    norms = np.sqrt(np.einsum("ic,ic->i", features, features, dtype=np.float64))
    if not np.isfinite(norms).all():
        bad = start + int(np.flatnonzero(~np.isfinite(norms))[0])
        raise AnalysisError(
            f"nearest neighbours: features of image {bad} of the {whose} are not finite; extract "
            "them again"
        )
    scale = 1 / np.where(norms > 0, norms, 1)
    unit = np.empty_like(features)
    return np.multiply(features, scale[:, None], out=unit, casting="same_kind")
