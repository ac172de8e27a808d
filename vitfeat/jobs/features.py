"""Features of whole images, layer by layer, as tasks and clustering take them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError, StoreError
from vitfeat.final_norm import FinalNorm
from vitfeat.jobs.reading import reader, rows_that_fit, slices
from vitfeat.numerics.gram import Read, token_means
from vitfeat.store.reader import FeatureStore, image_tokens

logger = logging.getLogger(__name__)

ARRAYS = {"cls": "cls", "mean": "spatial", "attention_mean": "attention_mean"}
"""What an image's features can be, and the array that they are made from."""

# What is read at once; a layer of features is put together from such pieces.
_PIECE_BYTES = 64 * 2**20


def image_features(
    store: FeatureStore,
    kind: str,
    position: int,
    used: NDArray[np.intp] | None = None,
    *,
    final_norm: bool = False,
) -> NDArray[np.float32]:
    """Read one layer's features of images, float32 (image, channel).

    ``kind`` is one of :data:`ARRAYS`: ``attention_mean`` is attention averaged over heads, each
    image's query x key matrix as one vector. ``used`` says which of the array's images by their
    place in it, all if None. With ``final_norm`` the model's final norm is applied: to tokens
    before their mean, unless the model applies it to the mean itself.
    """
    norm = _norm(store) if final_norm else None
    array = store[ARRAYS[kind]]
    if store.is_ragged and kind == "mean":
        rows = np.arange(store.n_images) if used is None else used
        return np.stack([_ragged_mean(store, int(row), position, norm) for row in rows])
    # Runs of a whole array are read faster than entries of it.
    n = array.shape[0] if used is None else len(used)
    read = reader(store, ARRAYS[kind], position, None if n == array.shape[0] else used)
    # Beside the values as they are stored, what is made of them in float64.
    extra = 8 * (array.shape[-1] if norm is None else prod(array.shape[2:]))
    rows_at_once = rows_that_fit(array, _PIECE_BYTES, extra=extra)
    if norm is not None and not (norm.pooled and kind == "mean"):
        read = _normed(read, norm)
    if kind == "mean":
        read = token_means(read, array.shape[-1], rows_at_once)
    if norm is not None and norm.pooled and kind == "mean":
        read = _normed(read, norm)
    width = array.shape[-1] if kind == "mean" else prod(array.shape[2:])
    out = np.empty((n, width), dtype=np.float32)
    for start, stop in slices(n, rows_at_once):
        out[start:stop] = read(start, stop).reshape(stop - start, -1)
    return out


def image_rows(store: FeatureStore, kind: str) -> NDArray[np.int64]:
    """Return the images that features can be made of, as rows of the store.

    An array may hold some images only; :func:`image_features` counts them by their place here.
    """
    # Ragged tokens are several an image, of all of them.
    if store.is_ragged and kind == "mean" and ARRAYS[kind] in store:
        return np.arange(store.n_images, dtype=np.int64)
    return store.rows(ARRAYS[kind])


def has_features(stores: Sequence[FeatureStore], kind: str, analysis: str) -> bool:
    """Return whether a model has what features are made of; the log says so where it has not.

    Its stores must then hold it of all images.
    """
    array = ARRAYS[kind]
    if not stores[0].model_has(array):
        logger.warning(f"{stores[0].model} has no CLS token: {kind} left out")
        return False
    for store in stores:
        if array not in store or len(image_rows(store, kind)) < store.n_images:
            what = "of some images only" if array in store else "not stored"
            raise AnalysisError(
                f"{store.path}: {array} {what} (it holds {store.held}), which {kind!r} is made of; "
                f"extract it of all images, or leave {kind!r} out of analyses.{analysis}.features"
            )
    return True


def named(kind: str, final_norm: bool) -> str:
    """Return how tables name features: ``cls``, and ``cls_norm`` behind the final norm."""
    return f"{kind}_norm" if final_norm else kind


def _normed(read: Read, norm: FinalNorm) -> Read:
    return lambda start, stop: norm(read(start, stop))


def _ragged_mean(
    store: FeatureStore, row: int, position: int, norm: FinalNorm | None
) -> NDArray[np.float32]:
    tokens = image_tokens(store, row, position)
    if norm is not None and not norm.pooled:
        tokens = norm(tokens)
    mean = tokens.mean((0, 1), dtype=np.float64)
    return norm(mean) if norm is not None and norm.pooled else mean.astype(np.float32)


def _norm(store: FeatureStore) -> FinalNorm:
    if store.final_norm is None:
        raise StoreError(
            f"{store.path}: holds no final norm: the model has none, or the store is of an earlier "
            "vitfeat; set final_norm: false, or extract it again"
        )
    return store.final_norm
