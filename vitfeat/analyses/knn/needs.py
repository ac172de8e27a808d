"""What the jobs of ``knn`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.needs import CORE_FLOPS, TORCH_MB, minutes, reading_seconds

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for test images with their neighbours, minutes to read and compare features."""
    settings, shape, threads = study.settings(KnnSettings), study.shape, study.threads
    n, n_train = study.n_images, study.n_train
    lists = n * (4 * shape.width + 8 * max(settings.neighbours)) / 2**20
    work = len(settings.features) * 2 * n * n_train * shape.width
    reading = reading_seconds(shape, n + n_train, settings.features)
    return Needs(
        # Lists, of which 2 GiB are held at most, become images and similarities; a thread has a
        # product, candidates and votes.
        TORCH_MB + int(3 * min(lists, 2048)) + 200 + 100 * threads,
        minutes(study.n_layers * (work / (CORE_FLOPS * threads) + reading)),
    )
