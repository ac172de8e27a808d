"""Classes by votes of the nearest training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import STORE, TRAIN_STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.needs import CORE_FLOPS, TORCH_MB, minutes, reading_seconds
from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

SCORING = Scoring(
    title="k-nearest neighbours",
    short="k-NN",
    headline=Headline("top1", "top-1", tuple(TOKENS), ("k=20", "k=10", "k=100", "k=200")),
    ranked=("top1", "top5"),
    counted="test image",
    measures=(
        Measure("top1", "Top-1, {variant}", Rank.OVERVIEW, "headline"),
        Measure("top5", "Top-5, {variant}", Rank.SET, "headline"),
        Measure("top1", "Top-1, {variant}", Rank.DETAILS),
    ),
    kinds=TOKENS,
    meaning="Top-1: share of the test images whose class has the most votes of their k nearest "
    "training images; top-5: whose class is among the five with the most.",
    details="k-nearest neighbours with other numbers of neighbours",
    details_meaning="Top-1: share of the test images whose class has the most votes of their k "
    "nearest training images.",
)


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


ANALYSIS = Analysis(
    "knn",
    KnnSettings,
    place=70,
    vectors=True,
    labels=True,
    jobs=(
        Job(
            "knn",
            "job:write_knn",
            inputs={"store": STORE, "train": TRAIN_STORE},
            outputs={"out": "knn/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "neighbours", "temperature"),
            alone=True,
            needs=needs,
            threads=lambda study: study.node_threads,
            gpu=True,
            by_layers=True,
        ),
    ),
    across=Across((SCORING,)),
)
