"""What the explorer makes of a layer of a store, in Python, for all images at once."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.metrics import metrics
from vitfeat.analyses.attention.norms import token_norms
from vitfeat.analyses.attention.source import tokens_of
from vitfeat.analyses.attention.summary import AttentionSummary
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import image_features
from vitfeat.jobs.reading import rows_that_fit, slices
from vitfeat.store.reader import FeatureStore, read_rows

_TOKENS = 20_000
_PIECE_BYTES = 64 * 2**20

METRICS = ("distance", "entropy", "cls_norm", "highest_norm", "mean_norm")
"""Numbers of every image: of each head, or of the layer (norms of its tokens)."""

FEATURES = {"cls": "cls", "mean": "spatial"}
"""Features of an image, and the array that they are made from."""

METHODS = ("pca", "tsne", "umap")


def components(store: FeatureStore, layer: int) -> dict[str, Any]:
    """Return three principal components of a layer's spatial tokens, one basis for all images.

    Returns
    -------
    dict
        ``mean`` (channel) and ``axes`` (3, channel); ``low`` and ``high`` (3), between which a
        token's coordinates become colours: the 1st and 99th percentile. The sign of an axis makes
        its largest coefficient positive. Of large stores, tokens of images that are spread over the
        dataset.
    """
    array = store["spatial"]
    some = _spread_tokens(store, layer) if not store.is_ragged else None
    if some is None:
        step = -(-array.shape[0] // _TOKENS)
        some = np.asarray(array[::step, layer], dtype=np.float32)
    mean = some.mean(0, dtype=np.float64)
    axes = _axes(some - mean.astype(np.float32), 3)
    coordinates = (some - mean) @ axes.T
    low, high = np.percentile(coordinates, [1, 99], axis=0)
    return {
        "mean": mean.tolist(),
        "axes": axes.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
    }


def _spread_tokens(store: FeatureStore, layer: int) -> NDArray[np.float32]:
    array = store["spatial"]
    each = int(np.prod(array.shape[2:-1]))
    n = max(1, min(array.shape[0], _TOKENS // each))
    rows = (2 * np.arange(n) + 1) * array.shape[0] // (2 * n)
    return np.asarray(array[rows, layer], dtype=np.float32).reshape(-1, array.shape[-1])


def _axes(centred: NDArray[Any], n: int) -> NDArray[np.float64]:
    """Return the first principal axes of centred rows, (n, channel); of fewer, zeros follow."""
    values, vectors = np.linalg.eigh(np.asarray(centred.T @ centred, dtype=np.float64))
    axes = vectors[:, np.argsort(values)[::-1][:n]].T
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    axes = axes * np.where(signs == 0, 1, signs)[:, None]
    return np.vstack([axes, np.zeros((n - len(axes), axes.shape[1]))])


def vectors(store: FeatureStore, layer: int, features: str) -> NDArray[np.float32]:
    """Return features of every image, each of norm 1: cosines are their products.

    Parameters
    ----------
    store, layer
        Whose, and where the layer stands.
    features
        ``cls`` or ``mean``.

    Returns
    -------
    NDArray
        float32 (image, channel).
    """
    found = _features(store, layer, features)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(norms == 0, 1, norms), dtype="<f4")


def _features(store: FeatureStore, layer: int, features: str) -> NDArray[np.float32]:
    if features == "regions":
        return np.asarray(store["regions"][:, layer], dtype=np.float32)
    if features not in FEATURES:
        raise AnalysisError(f"features {features!r}: choose {', '.join(FEATURES)}")
    return image_features(store, features, layer)


def points(store: FeatureStore, layer: int, features: str, method: str) -> dict[str, Any]:
    """Return images, or their regions, as points on two axes.

    Parameters
    ----------
    store, layer
        Whose, and where the layer stands.
    features
        As :func:`vectors` takes them, or ``regions``.
    method
        ``pca``; ``tsne``; ``umap`` where it is installed.

    Returns
    -------
    dict
        ``x`` and ``y`` by image; with PCA ``shares``, of the variance that the axes hold.

    Raises
    ------
    AnalysisError
        Unknown method, or it is not installed.
    """
    found = _features(store, layer, features)
    if method == "pca":
        centred = found - found.mean(0)
        xy = centred @ _axes(centred, 2).T
        whole = float(np.square(centred, dtype=np.float64).sum()) or 1.0
        shares = (np.square(xy).sum(0) / whole).tolist()
        return {"x": xy[:, 0].tolist(), "y": xy[:, 1].tolist(), "shares": shares}
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(found) - 1) / 3)
        xy = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(found)
    elif method == "umap":
        if find_spec("umap") is None:
            raise AnalysisError("UMAP is not installed: pip install umap-learn")
        xy = import_module("umap").UMAP(random_state=0).fit_transform(found)
    else:
        raise AnalysisError(f"method {method!r}: choose {', '.join(METHODS)}")
    return {"x": xy[:, 0].astype(float).tolist(), "y": xy[:, 1].astype(float).tolist()}


def metric(store: FeatureStore, layer: int, name: str) -> NDArray[np.float32]:
    """Return a number of every image.

    Parameters
    ----------
    store, layer
        Whose, and where the layer stands.
    name
        Out of :data:`METRICS`.

    Returns
    -------
    NDArray
        float32, (image, head) or (image, 1).

    Raises
    ------
    AnalysisError
        Unknown metric.
    """
    if name == "distance":
        return np.asarray(_distances(store, layer), dtype="<f4")
    if name == "entropy":
        return np.asarray(store["attention_summary/entropy"][:, layer], dtype="<f4")
    if name == "cls_norm":
        return np.asarray(token_norms(store["cls"][:, layer])[:, None], dtype="<f4")
    if name in ("highest_norm", "mean_norm"):
        return np.asarray(_norms(store, layer, name), dtype="<f4")
    raise AnalysisError(f"metric {name!r}: choose {', '.join(METRICS)}")


def _distances(store: FeatureStore, layer: int) -> NDArray[Any]:
    tokens = tokens_of(store)
    group = "attention_summary/"
    names = [name for name in store.array_names if name.startswith(group)]
    found = []
    for start, stop in slices(
        store.n_images, rows_that_fit(store[f"{group}aligned"], _PIECE_BYTES)
    ):
        read = {n[len(group) :]: read_rows(store, n, start, stop, layer) for n in names}
        found.append(metrics(AttentionSummary(read, tokens))["distance"])
    return np.concatenate(found)


def _norms(store: FeatureStore, layer: int, name: str) -> NDArray[Any]:
    array = store["spatial"]
    reduce = np.max if name == "highest_norm" else np.mean
    if store.is_ragged:
        norms = token_norms(array[:, layer])
        starts = store.token_start
        return np.array([reduce(norms[a:b]) for a, b in pairwise(starts)])[:, None]
    found = []
    for start, stop in slices(len(array), rows_that_fit(array, _PIECE_BYTES)):
        norms = token_norms(read_rows(store, "spatial", start, stop, layer))
        found.append(reduce(norms.reshape(len(norms), -1), axis=1))
    return np.concatenate(found)[:, None]
