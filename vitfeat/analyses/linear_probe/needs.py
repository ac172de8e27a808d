"""What the jobs of ``linear_probe`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.needs import CLASS_IMAGES, CORE_FLOPS, TORCH_MB, minutes, reading_seconds

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# Of the largest classifier that is foreseen, and of a fit; few need more.
_CLASSES = 1000
_ITERATIONS = 200


def needs(study: Study) -> Needs:
    """Return MiB for a layer's training images and two copies, minutes to fit all classifiers."""
    settings, shape, threads = study.settings(LinearProbeSettings), study.shape, study.threads
    n_train = study.n_train
    features = 4 * (3 * n_train + study.n_images) * shape.width / 2**20
    # Gradients and the past steps.
    steps = 8 * (25 + threads) * _CLASSES * shape.width / 2**20
    classes = min(n_train // CLASS_IMAGES + 1, _CLASSES)
    # Of each penalty, and the last one.
    fits = len(settings.features) * (len(settings.regularisation) + 1)
    work = fits * _ITERATIONS * 4 * n_train * classes * shape.width
    reading = reading_seconds(shape, n_train, settings.features)
    return Needs(
        TORCH_MB + int(features + steps) + 200 * threads,
        minutes(study.n_layers * (work / (CORE_FLOPS * threads) + reading)),
    )
