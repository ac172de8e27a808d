"""Measures of similarity between two layers, each from Gram matrices over the same n images.

Every measure prepares a layer once and then compares prepared layers in pairs. None changes when
the features of either side are rotated or scaled by one factor; all but ``mutual_knn`` also keep
when they are moved by a constant. docs/analyses/similarity.md has the definitions side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from vitfeat.analyses.cka.compute import MIN_IMAGES
from vitfeat.analyses.similarity.cka_intervals import cka, prepare_cka, resample_cka
from vitfeat.analyses.similarity.half_samples import Halves
from vitfeat.analyses.similarity.knn import mutual_knn, prepare_knn, resample_knn
from vitfeat.analyses.similarity.layers import Floats, Layer
from vitfeat.analyses.similarity.rsa import prepare_rsa, resample_rsa, rsa
from vitfeat.analyses.similarity.spectra import procrustes, spectrum, svcca

P = TypeVar("P")


@dataclass(frozen=True)
class Measure(Generic[P]):
    """A measure of similarity.

    Attributes
    ----------
    prepare
        What a layer costs once; None where the measure does not exist for it.
    compare
        Similarity of two prepared layers; NaN where there is none.
    resample
        Similarity of all prepared layers of one side with all of the other on halves of the
        images, (resample, layer_a, layer_b); None for a measure without intervals.
    min_images
        Images that it needs; in each half too.
    setting
        What it was made with, if there is a choice.
    saturated
        Why two layers that have each been prepared may have no similarity: for messages.
    """

    prepare: Callable[[Layer], P | None]
    compare: Callable[[P, P], float]
    resample: Callable[[Sequence[P], Sequence[P], Halves], Floats] | None
    min_images: int
    setting: float | None = None
    saturated: str = ""


NAMES = ("cka", "procrustes", "rsa", "mutual_knn", "svcca")
"""The measures, in the order of the figures."""


def measures(neighbours: int = 10, variance: float = 0.99) -> Mapping[str, Measure[Any]]:
    """Return the measures by name, in the order of :data:`NAMES`.

    :func:`mutual_knn` compares so many `neighbours` of an image, and :func:`svcca` keeps that share
    of each layer's `variance`.
    """
    return {
        "cka": Measure(prepare_cka, cka, resample_cka, MIN_IMAGES),
        "procrustes": Measure(spectrum, procrustes, None, 2),
        "rsa": Measure(prepare_rsa, rsa, resample_rsa, 3),
        "mutual_knn": Measure(
            partial(prepare_knn, neighbours=neighbours),
            mutual_knn,
            resample_knn,
            2,
            setting=neighbours,
        ),
        "svcca": Measure(
            spectrum,
            partial(svcca, variance=variance),
            None,
            3,
            setting=variance,
            saturated=f"more directions than images can tell apart hold {variance:.4g} of their "
            "variance; take more images or a smaller share",
        ),
    }
