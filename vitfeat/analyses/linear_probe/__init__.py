"""Classes by logistic regression on every layer."""

from vitfeat.analyses.base import STORE, TRAIN_STORE, Analysis, Job, scores_across
from vitfeat.analyses.linear_probe.needs import needs
from vitfeat.analyses.linear_probe.scoring import SCORING
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings

ANALYSIS = Analysis(
    "linear_probe",
    LinearProbeSettings,
    place=80,
    labels=True,
    jobs=(
        Job(
            "linear_probe",
            "job:write_linear_probe",
            inputs={"store": STORE, "train": TRAIN_STORE},
            outputs={"out": "linear_probe/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "regularisation", "validation", "seed"),
            needs=needs,
            threads=lambda study: study.node_threads,
            gpu=True,
            by_layers=True,
        ),
    ),
    across=scores_across(SCORING),
)
