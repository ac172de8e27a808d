"""What skip connections carry, against what attention and MLP add."""

from vitfeat.analyses.base import STORE, Across, Analysis, Job
from vitfeat.analyses.residual.needs import needs
from vitfeat.analyses.residual.settings import ResidualSettings, compares

ANALYSIS = Analysis(
    "residual",
    ResidualSettings,
    place=60,
    jobs=(
        Job(
            "residual",
            "job:write_residual",
            inputs={"store": STORE},
            outputs={
                "norms": "residual/{dataset}/{model}.norms.csv",
                "cka": "residual/{dataset}/{model}.cka.csv",
            },
            optional={"cka": compares},
            settings=("tokens",),
            needs=needs,
            # One reads while the other sums.
            threads=lambda study: min(2, study.node_threads),
            gpu=compares,
        ),
    ),
    across=Across(
        "across:draw_set",
        "across:draw_overview",
        names=lambda settings: ("norms", "families", *(["cka"] if settings.tokens else [])),
        tables=lambda settings: (".norms.csv", *([".cka.csv"] if settings.tokens else [])),
        settings=("tokens",),
    ),
)
