"""Attention on high-norm tokens: the share that goes to sinks among the spatial tokens."""

from vitfeat.analyses.base import STORE, Across, Analysis, Job
from vitfeat.analyses.sinks.needs import needs
from vitfeat.analyses.sinks.settings import SinkSettings

ANALYSIS = Analysis(
    "sinks",
    SinkSettings,
    place=45,
    jobs=(
        Job(
            "sinks",
            "job:write_sinks",
            inputs={"store": STORE},
            outputs={"out": "sinks/{dataset}/{model}.csv"},
            settings=("rule", "norms", "queries"),
            needs=needs,
        ),
    ),
    across=Across(
        "across:draw_set",
        "across:draw_overview",
        names=lambda _: ("by_layer", "families", "breakout"),
    ),
)
