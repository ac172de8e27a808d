"""Classes by logistic regression on every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import STORE, TRAIN_STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.needs import CLASS_IMAGES, CORE_FLOPS, TORCH_MB, minutes, reading_seconds
from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

SCORING = Scoring(
    title="Linear probe",
    short="Linear probe",
    headline=Headline("top1", "top-1", tuple(TOKENS)),
    ranked=("top1", "top5"),
    counted="test image",
    measures=(
        Measure("top1", "Top-1", Rank.OVERVIEW),
        Measure("top5", "Top-5", Rank.SET),
    ),
    kinds=TOKENS,
    chosen="penalty=",
    meaning="Top-1: share of the test images whose class the probe finds most likely; top-5: "
    "whose class is among its five most likely.",
)


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


ANALYSIS = Analysis(
    "linear_probe",
    LinearProbeSettings,
    place=80,
    vectors=True,
    labels=True,
    jobs=(
        Job(
            "linear_probe",
            "job:write_linear_probe",
            inputs={"store": STORE, "train": TRAIN_STORE},
            outputs={"out": "linear_probe/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "regularisation", "validation", "seed"),
            alone=True,
            needs=needs,
            threads=lambda study: study.node_threads,
            gpu=True,
            by_layers=True,
        ),
    ),
    across=Across((SCORING,)),
)
