"""Scores of arrays: the arithmetic of the analyses, without stores and without the workflow.

Everything is computed by what the analyses' jobs call, with the same defaults, so that the numbers
are those of their tables. Arrays may be NumPy's, xarray's, or PyTorch's on a CPU; they are not
changed. What is worth knowing beside a number, such as classes without training images, is a
warning of Python's ``logging``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import isqrt
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.attention.summary import Null
from vitfeat.analyses.cka.compute import BatchOrder
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.errors import AnalysisError
from vitfeat.notebook.given import (
    Features,
    TrainTest,
    check_widths,
    checked,
    codes,
    features_of,
    labelled,
    masks_of,
    numbers,
    places_of,
    several,
)
from vitfeat.text import plural

Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

_ATTENTION = AttentionSettings()
_CKA = CkaSettings()
_CLUSTERING = ClusteringSettings()
_KEYPOINTS = KeypointSettings()
_KNN = KnnSettings()
_PROBE = LinearProbeSettings()
_RETRIEVAL = RetrievalSettings()
_VIDEO = VideoSettings()

# float16 and rounding to a few bits change sums of rows; logits and weights are far off.
_OF_ONE = 0.05


@overload
def cka(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    estimator: str = ...,
    batch_size: int = ...,
    batch_order: BatchOrder = ...,
    seed: int = ...,
) -> float: ...


@overload
def cka(
    x: Sequence[NDArray[Any]],
    y: Sequence[NDArray[Any]],
    *,
    estimator: str = ...,
    batch_size: int = ...,
    batch_order: BatchOrder = ...,
    seed: int = ...,
) -> Floats: ...


def cka(
    x: NDArray[Any] | Sequence[NDArray[Any]],
    y: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    estimator: str = _CKA.estimators[0],
    batch_size: int = _CKA.batch_size,
    batch_order: BatchOrder = _CKA.batch_order,
    seed: int = _CKA.seed,
) -> float | Floats:
    r"""Linear centred kernel alignment of two sets of features of the same images.

    :math:`HSIC(K, L) / \sqrt{HSIC(K, K) \; HSIC(L, L)}` of the Gram matrices of the features; see
    :func:`vitfeat.analyses.cka.compute.cka` for the estimators, and docs/analyses/cka.md.

    Parameters
    ----------
    x, y
        Features (image, ...), the same images in the same order; further axes, such as tokens and
        channels, are flattened. Or a list of such arrays each, one a layer. float32 is what Gram
        matrices are computed from.
    estimator
        ``debiased``, ``biased``, ``minibatch`` or ``paper``.
    batch_size, batch_order, seed
        Images of a batch, how images come to batches (``shuffled``, ``stored``), and the seed of
        the order: of ``minibatch`` and ``paper``.

    Returns
    -------
    float or NDArray
        At most 1; of lists float64 (layer of x, layer of y). NaN where features do not tell the
        images apart.

    Raises
    ------
    AnalysisError
        Not the same number of images, fewer than four, features that are not finite, or an unknown
        estimator.
    ConfigError
        A setting is out of range.

    Examples
    --------
    CKA does not change with the directions and the scale of the axes:

    >>> import numpy as np, vitfeat
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> rotation = np.linalg.qr(x[:3])[0]
    >>> round(vitfeat.cka(x, 2 * x @ rotation), 4)
    1.0
    >>> vitfeat.cka([x, x**2], [x]).shape
    (2, 1)
    """
    from vitfeat.analyses.cka import compute

    checked(CkaSettings, "cka", batch_size=batch_size, batch_order=batch_order, seed=seed)
    of_layers = isinstance(x, list | tuple)
    if of_layers != isinstance(y, list | tuple):
        raise AnalysisError("cka: x and y must both be arrays, or both lists of arrays")
    left = _layers("x", x)
    right = left if y is x else _layers("y", y)
    if (n := left[0].shape[0]) != (m := right[0].shape[0]):
        raise AnalysisError(
            f"cka: x is of {plural(n, 'image')} and y of {m}; give features of the same images"
        )
    a = _grams("x", left)
    b = a if right is left else _grams("y", right)
    values = compute.cka(
        a,
        b,
        estimator=estimator,
        batch_size=batch_size,
        batch_order=batch_order,
        seed=seed,
    )
    return values if of_layers else float(values[0, 0])


def _layers(name: str, given: Any) -> list[Features]:
    """Return the features of layers as (image, channel).

    Raises
    ------
    AnalysisError
        They are none, or of different numbers of images.
    """
    parts = given if isinstance(given, list | tuple) else [given]
    if not parts:
        raise AnalysisError(f"cka: {name} is an empty list; give the features of a layer or more")
    found = [features_of("cka", name, part, flat=True) for part in parts]
    counts = {len(part) for part in found}
    if len(counts) > 1:
        raise AnalysisError(
            f"cka: layers of {name} are of {' and '.join(map(str, sorted(counts)))} images; all "
            "must be of the same ones"
        )
    return found


def _grams(name: str, layers: Sequence[Features]) -> Any:
    from vitfeat.numerics.gram import gram
    from vitfeat.numerics.gramfile import GramMeta
    from vitfeat.numerics.grams import GramsInMemory

    n = len(layers[0])
    return GramsInMemory(
        [gram(lambda start, stop, of=layer: of[start:stop], n) for layer in layers],  # type: ignore[misc]
        GramMeta(name, "", "features", "", ""),
    )


def attention_metrics(
    attention: ArrayLike,
    grid: tuple[int, int] | None = None,
    *,
    has_cls: bool = True,
    n_registers: int = 0,
    patch_size: int | None = None,
    null_rows: Null = _ATTENTION.null_rows,
    offset_null_rows: Null = _ATTENTION.offset_null_rows,
) -> dict[str, Floats]:
    """Metrics of attention that are one number a head: distance, entropy, attention on CLS, ...

    See :func:`vitfeat.analyses.attention.metrics.metrics` for each, and docs/analyses/attention.md.

    Parameters
    ----------
    attention
        (..., head, query, key) after the softmax. Tokens are CLS, registers, then the grid row by
        row.
    grid
        Rows and columns of the token grid; square if not given.
    has_cls, n_registers
        Whether there is a CLS token, and how many registers.
    patch_size
        Edge of a patch in pixels of the model's input; without it no length is in pixels.
    null_rows, offset_null_rows
        What becomes of queries that attend to no spatial token, in distances and in offsets:
        ``zero`` (a row of zeros) or ``exclude``.

    Returns
    -------
    dict
        By name float64 (..., head); deviations over heads are without the head. ``distance`` is in
        edges of the image, ``distance_patches``, ``offset_x`` and ``offset_y`` in patches,
        ``distance_pixels`` in pixels, ``entropy`` in nats, ``n_null`` counts queries, all others
        are shares. What the tokens do not have is absent. Over images, tables weigh what leaves
        queries out by the queries that are left.

    Raises
    ------
    AnalysisError
        The attention is of another shape, not finite, or its rows do not sum to 1.
    ConfigError
        A setting is unknown.

    Examples
    --------
    Two heads over CLS and a grid of 2 x 2 tokens, of uniform attention and of each token to itself:

    >>> import numpy as np, vitfeat
    >>> attention = np.stack([np.full((5, 5), 1 / 5), np.eye(5)])
    >>> found = vitfeat.attention_metrics(attention)
    >>> found["distance"].round(3), found["spatial_to_cls"].round(3)
    (array([0.854, 0.   ]), array([0.2, 0. ]))
    >>> bool(np.isclose(found["entropy"][0], np.log(5)))
    True
    """
    from vitfeat.analyses.attention.kernel import summarise
    from vitfeat.analyses.attention.metrics import metrics
    from vitfeat.analyses.attention.summary import Tokens

    name = "attention_metrics"
    checked(AttentionSettings, name, null_rows=null_rows, offset_null_rows=offset_null_rows)
    values = numbers(name, "attention", attention)
    if values.ndim < 3:
        raise AnalysisError(
            f"{name}: attention of shape {values.shape}; needed is (..., head, query, key)"
        )
    if grid is None:
        n_spatial = values.shape[-1] - int(has_cls) - n_registers
        side = isqrt(max(n_spatial, 0))
        if not side or side * side != n_spatial:
            raise AnalysisError(
                f"{name}: {values.shape[-1]} tokens without CLS and registers are {n_spatial}, "
                "which is no square; give grid=(rows, columns), has_cls and n_registers"
            )
        grid = (side, side)
    totals = values.sum(axis=-1, dtype=np.float64)
    if values.size and not (np.abs(totals - 1) <= _OF_ONE).all():
        worst = totals.flat[int(np.argmax(np.abs(totals - 1)))]
        raise AnalysisError(
            f"{name}: a row of attention sums to {worst:g}, not 1; give the attention after the "
            "softmax, (..., head, query, key), all tokens among the keys"
        )
    summary = summarise(values, Tokens(grid, has_cls, n_registers))
    return metrics(summary, patch_size=patch_size, null=null_rows, offset_null=offset_null_rows)


def cluster_scores(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    clusters: int | None = _CLUSTERING.clusters,
    n_init: int = _CLUSTERING.n_init,
    seeds: int = _CLUSTERING.seeds,
    seed: int = _CLUSTERING.seed,
    threads: int = 1,
) -> dict[str, float]:
    """How well k-means clusters of features agree with classes: NMI, ARI and purity.

    Parameters
    ----------
    features
        (image, channel); clustered as float32.
    labels
        (image,): classes, whole numbers or texts. Images of -1 have none and are left out.
    clusters
        Number of clusters; that of the classes if not given.
    n_init
        Initialisations of k-means; the best is kept.
    seeds, seed
        How many k-means the scores are averaged over, and the seed of the first.
    threads
        k-means that run side by side.

    Returns
    -------
    dict
        ``nmi`` and ``purity`` from 0 to 1, ``ari`` at most 1 and 0 by chance; see
        :mod:`vitfeat.numerics.cluster_scores`.

    Raises
    ------
    AnalysisError
        Fewer than two classes, fewer images than clusters, or features that are not finite.
    ConfigError
        A setting is out of range.

    Examples
    --------
    >>> import vitfeat
    >>> features = [[0.0, 0.1], [0.0, 0.2], [9.0, 9.1], [9.0, 9.2]]
    >>> vitfeat.cluster_scores(features, ["cat", "cat", "dog", "dog"])
    {'nmi': 1.0, 'ari': 1.0, 'purity': 1.0}
    """
    from vitfeat.numerics.cluster_scores import SCORES, scores
    from vitfeat.numerics.kmeans import k_means

    name = "cluster_scores"
    checked(ClusteringSettings, name, clusters=clusters, n_init=n_init, seeds=seeds, seed=seed)
    x, classes = labelled(name, ("features", features), ("labels", labels))
    n_classes = len(np.unique(classes))
    if n_classes < 2:
        raise AnalysisError(
            f"{name}: {plural(len(x), 'labelled image')} of {n_classes} class; clusters are scored "
            "against two or more"
        )
    (found,) = k_means(
        [x],
        clusters or n_classes,
        n_init=n_init,
        seeds=range(seed, seed + seeds),
        threads=threads,
    )
    each = [scores(classes, assignment) for assignment in found]
    return {score: float(np.mean([one[score] for one in each])) for score in SCORES}


def knn(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    neighbours: int | Sequence[int] = _KNN.neighbours,
    temperature: float = _KNN.temperature,
    threads: int = 1,
    device: str = "auto",
) -> dict[int, dict[str, float]]:
    """Accuracy of classifying images by weighted votes of their nearest training images.

    A neighbour's vote weighs exp(cosine / temperature); the search is exact. See
    :func:`vitfeat.analyses.knn.compute.votes_ranks`.

    Parameters
    ----------
    train, test
        Features (image, channel) of training and of test images; compared as float32.
    train_labels, test_labels
        (image,): classes, whole numbers or texts, the same name for the same class. Images of -1
        have none and are left out.
    neighbours
        Numbers of neighbours that vote. One above the number of training images is that number.
    temperature
        Above 0.
    threads
        Threads that compare, on a CPU.
    device
        auto (a GPU where there is one), cpu, cuda or cuda:N.

    Returns
    -------
    dict
        By number of neighbours: ``top1`` and ``top5``, shares of the test images from 0 to 1 whose
        class wins, or is among the five with the most votes. A test image of a class that no
        training image has counts as one that is not recognised.

    Raises
    ------
    AnalysisError
        No class is in both, features are of different widths or not finite, or labels are not one
        an image.
    ConfigError
        A setting is out of range.

    Examples
    --------
    >>> import vitfeat
    >>> train, classes = [[1, 0], [2, 0.1], [0, 1], [0.1, 3]], ["cat", "cat", "dog", "dog"]
    >>> vitfeat.knn(train, classes, [[5, 1], [1, 4], [0, 2]], ["cat", "dog", "dog"], neighbours=1)
    {1: {'top1': 1.0, 'top5': 1.0}}
    """
    from vitfeat.analyses.knn.compute import TOPS, knn_ranks, share_within
    from vitfeat.device import torch_device_name

    counts = several(neighbours)
    checked(KnnSettings, "knn", neighbours=counts, temperature=temperature)
    both = TrainTest.of("knn", train, train_labels, test, test_labels)
    counts = list(dict.fromkeys(min(k, len(both.train)) for k in counts))
    ranks = knn_ranks(
        lambda start, stop: both.test[start:stop],
        both.truth,
        lambda start, stop: both.train[start:stop],
        both.classes,
        counts,
        temperature=temperature,
        threads=threads,
        device=torch_device_name(device),
    )
    return {
        k: {f"top{top}": share_within(of_k, top) for top in TOPS}
        for k, of_k in zip(counts, ranks, strict=True)
    }


def linear_probe(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    regularisation: float | Sequence[float] = _PROBE.regularisation,
    validation: float = _PROBE.validation,
    seed: int = _PROBE.seed,
    threads: int = 1,
    device: str = "auto",
) -> dict[str, float]:
    """Accuracy of a linear classifier (logistic regression) of standardised features.

    The penalty is chosen on a part of the training images; see
    :func:`vitfeat.analyses.linear_probe.compute.probe`.

    Parameters
    ----------
    train, train_labels, test, test_labels
        See :func:`knn`.
    regularisation
        Strengths of the penalty that are tried, each above 0; a single one is not chosen.
    validation, seed
        Share of the training images that the penalty is chosen on, and the seed of their choice.
    threads
        Threads that take images, on a CPU; their number changes nothing.
    device
        Where the classifiers are fitted: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Returns
    -------
    dict
        ``top1``, with more than five classes ``top5``, where there was a choice
        ``validation_top1``, the accuracy that chose the penalty, all from 0 to 1, and ``penalty``.

    Raises
    ------
    AnalysisError
        As :func:`knn`; or training images of one class, or none that could be set aside.
    ConfigError
        A setting is out of range.

    Examples
    --------
    >>> import vitfeat
    >>> train, classes = [[0, 1], [1, 3], [4, 0], [5, 2]], ["cat", "cat", "dog", "dog"]
    >>> vitfeat.linear_probe(train, classes, [[0, 0], [6, 1]], ["cat", "dog"], regularisation=0.01)
    {'top1': 1.0, 'penalty': 0.01}
    """
    from vitfeat.analyses.knn.compute import TOPS, share_within
    from vitfeat.analyses.linear_probe.compute import probe
    from vitfeat.analyses.linear_probe.logistic import TOLERANCE
    from vitfeat.device import torch_device_name

    name = "linear_probe"
    penalties = several(regularisation)
    checked(LinearProbeSettings, name, regularisation=penalties, validation=validation, seed=seed)
    both = TrainTest.of(name, train, train_labels, test, test_labels)
    fitted = probe(
        both.train,
        both.classes,
        both.n_classes,
        penalties,
        validation=validation,
        seed=seed,
        threads=threads,
        device=torch_device_name(device),
    )
    for penalty, fit in fitted.unconverged.items():
        logger.warning(
            "%s: penalty %g had not converged after %d iterations (largest entry of the gradient "
            "%.1e, not %g)",
            *(name, fitted.penalty if penalty is None else penalty, fit.iterations),
            *(fit.gradient, TOLERANCE),
        )
    ranks = fitted.ranks(both.test, both.truth)
    tops = [top for top in TOPS if top == 1 or both.n_classes > top]
    scores = {f"top{top}": share_within(ranks, top) for top in tops}
    if fitted.validation:
        scores["validation_top1"] = fitted.validation[fitted.penalty]
    return scores | {"penalty": fitted.penalty}


def retrieval_map(
    queries: ArrayLike,
    database: ArrayLike,
    easy: Sequence[Iterable[int]],
    hard: Sequence[Iterable[int]] | None = None,
    junk: Sequence[Iterable[int]] | None = None,
    *,
    ranks: int | Sequence[int] = _RETRIEVAL.ranks,
) -> dict[str, dict[str, float]]:
    """Mean average precision of a database ranked by its cosine to queries.

    The variants are those of the revisited Oxford and Paris; see
    :mod:`vitfeat.analyses.retrieval.compute`. Without ``hard`` and ``junk``, ``easy`` is what is
    relevant.

    Parameters
    ----------
    queries, database
        Descriptors (image, channel) of any length.
    easy, hard, junk
        Of every query, the places in the database of images that are easy, hard or junk to it, none
        of them twice; all others are negative.
    ranks
        Ranks of mean precision.

    Returns
    -------
    dict
        By variant (``easy``: hard and junk are ignored; ``medium``: junk is; ``hard``: easy and
        junk are) ``map`` and ``mp@{rank}``, from 0 to 1, means over the queries with a positive
        image; a variant in which no query has one is absent.

    Raises
    ------
    AnalysisError
        Descriptors are of different widths or not finite, or places are not those of database
        images.
    ConfigError
        A setting is out of range.

    Examples
    --------
    The images in the order of likeness are 1, 0, 2; the first and the last are relevant:

    >>> import vitfeat
    >>> found = vitfeat.retrieval_map([[1, 0]], [[2, 1], [3, 0], [0, 1]], [[1, 2]], ranks=[1])
    >>> {score: round(value, 3) for score, value in found["easy"].items()}
    {'map': 0.792, 'mp@1': 1.0}
    """
    from vitfeat.analyses.retrieval.compute import evaluate, similarities

    name = "retrieval_map"
    at = several(ranks)
    checked(RetrievalSettings, name, ranks=at)
    wanted, images = features_of(name, "queries", queries), features_of(name, "database", database)
    check_widths(name, ("queries", wanted), ("database", images))
    nobody: list[list[int]] = [[]] * len(wanted)
    grades = {"easy": easy, "hard": nobody if hard is None else hard}
    grades["junk"] = nobody if junk is None else junk
    for grade, places in grades.items():
        if len(places) != len(wanted):
            raise AnalysisError(
                f"{name}: {grade} has {plural(len(places), 'list')} of places, but there are "
                f"{len(wanted)} queries; give one for each"
            )
    graded = []
    for query in range(len(wanted)):
        of_query = {grade: places_of(name, places[query]) for grade, places in grades.items()}
        every = np.concatenate(list(of_query.values()))
        outside = every[(every < 0) | (every >= len(images))]
        if len(outside) or len(np.unique(every)) < len(every):
            problem = f"place {outside[0]}" if len(outside) else "a place twice"
            raise AnalysisError(
                f"{name}: query {query} has {problem}; places go from 0 to {len(images) - 1}, and "
                "an image has one grade"
            )
        graded.append(of_query)
    by_variant = evaluate(similarities(wanted, [images], len(images)), graded, at)
    if not any(len(scores.queries) for scores in by_variant.values()):
        raise AnalysisError(
            f"{name}: no query has an easy or hard image; there is nothing to score"
        )
    return {
        variant: {"map": float(scores.average_precision.mean())}
        | {
            f"mp@{k}": float(values.mean())
            for k, values in zip(at, scores.precision.T, strict=True)
        }
        for variant, scores in by_variant.items()
        if len(scores.queries)
    }


def jf(
    truth: ArrayLike,
    predicted: ArrayLike,
    objects: Literal["first_mask", "official"] | Sequence[int] = _VIDEO.objects,
) -> dict[str, float]:
    """J and F of the objects of a video, as DAVIS-2017 scores them.

    See :mod:`vitfeat.analyses.video.segmentation_scores`. The first frame, whose mask is given, and
    the last are not scored.

    Parameters
    ----------
    truth, predicted
        (frame, height, width): numbers of objects, 0 for the background; 255 in the truth (void)
        counts as background, too.
    objects
        The numbers that are scored: those of the ``first_mask``, or ``official``: all up to the
        highest one in it.

    Returns
    -------
    dict
        ``jf_mean``, and of each measure ``j_mean``, ``j_recall``, ``j_decay``, ``f_mean``,
        ``f_recall``, ``f_decay``: means over objects, shares from 0 to 1 (a decay may be negative).

    Raises
    ------
    AnalysisError
        Masks are of unlike shapes, of fewer than three frames, or hold no object, or the predicted
        ones another.

    Examples
    --------
    An object of 4 of 16 pixels, half of which are found in the second frame:

    >>> import numpy as np, vitfeat
    >>> truth = np.zeros((3, 4, 4), dtype=int)
    >>> truth[:, 1:3, 1:3] = 1
    >>> predicted = truth.copy()
    >>> predicted[1, 2] = 0
    >>> vitfeat.jf(truth, predicted)["j_mean"]
    0.5
    """
    from vitfeat.analyses.video.segmentation_scores import score_sequence, summary
    from vitfeat.data.masks import objects_in

    true, guess = masks_of("truth", truth), masks_of("predicted", predicted)
    if true.shape != guess.shape:
        raise AnalysisError(
            f"jf: truth is of shape {true.shape}, predicted of {guess.shape}; both must be (frame, "
            "height, width) of the same frames"
        )
    if isinstance(objects, str):
        checked(VideoSettings, "jf", objects=objects)
        present = objects_in(true[0]) if len(true) else ()
        highest = max(present, default=0)
        scored = present if objects == "first_mask" else tuple(range(1, highest + 1))
    else:
        scored = tuple(int(number) for number in objects)
    return summary([score_sequence(true, guess, scored)])


def pck(
    found: ArrayLike,
    target: ArrayLike,
    side: ArrayLike,
    *,
    pair: ArrayLike | None = None,
    category: ArrayLike | None = None,
    alphas: float | Sequence[float] = _KEYPOINTS.alphas,
) -> dict[float, dict[str, float]]:
    """Share of keypoints that are found: at most alpha times the target's larger side away.

    Parameters
    ----------
    found, target
        (point, 2): x and y where points were found, and where they are, in pixels.
    side
        (point,) or a number: the larger side of the target's box, in pixels.
    pair
        (point,): the pair of images that a point is of, to average over pairs, too.
    category
        (point,): the category of its pair, to average over categories, too.
    alphas
        Shares of the larger side, above 0.

    Returns
    -------
    dict
        By alpha, from 0 to 1: ``pck_point``, the mean over points; with pairs ``pck_image``, the
        mean over pairs of the means of their points; with categories
        ``pck_point_category_mean``, and with both ``pck_image_category_mean``.

    Raises
    ------
    AnalysisError
        Arrays are not of the same points, of none, or not finite.
    ConfigError
        An alpha is not above 0.

    Examples
    --------
    Three points, 0, 5 and 20 pixels off, of a box of 100 pixels:

    >>> import vitfeat
    >>> found, target = [[10, 10], [40, 45], [0, 20]], [[10, 10], [40, 40], [0, 0]]
    >>> vitfeat.pck(found, target, 100, pair=[0, 0, 1], alphas=0.1)
    {0.1: {'pck_point': 0.6666666666666666, 'pck_image': 0.5}}
    """
    from vitfeat.analyses.keypoints.compute import Points, scores

    shares = several(alphas)
    checked(KeypointSettings, "pck", alphas=shares)
    places, true = (
        numbers("pck", name, given).astype(np.float64)
        for name, given in (("found", found), ("target", target))
    )
    n = len(true) if true.ndim == 2 else 0
    sides = numbers("pck", "side", side).astype(np.float64)
    if not n or true.shape != (n, 2) or places.shape != true.shape or sides.shape not in ((), (n,)):
        raise AnalysisError(
            f"pck: found of shape {places.shape}, target of {true.shape}, side of {sides.shape}; "
            "needed are (point, 2) twice, and (point,) or a number, of a point or more"
        )
    if not all(np.isfinite(values).all() for values in (places, true, sides)):
        raise AnalysisError("pck: found, target or side holds values that are not finite")
    groups = [
        np.zeros(n, dtype=np.int64)
        if given is None
        else np.unique(codes("pck", name, given, n), return_inverse=True)[1]
        for name, given in (("pair", pair), ("category", category))
    ]
    points = Points(groups[0], groups[1].astype(np.str_), true, true, np.broadcast_to(sides, (n,)))
    by_alpha: dict[float, dict[str, float]] = {alpha: {} for alpha in shares}
    for alpha, of_alpha in by_alpha.items():
        for score in scores(points, places, np.zeros(n, dtype=bool), [alpha]):
            unasked = (pair is None and "image" in score.score) or (
                category is None and "category" in score.score
            )
            if score.score.startswith("pck_") and not score.group and not unasked:
                of_alpha[score.score] = score.value
    return by_alpha
