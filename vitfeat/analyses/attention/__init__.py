"""Attention metrics, and maps averaged over images."""

from vitfeat.analyses.attention.needs import drawing_needs, needs
from vitfeat.analyses.attention.settings import AttentionSettings, draws_classes
from vitfeat.analyses.base import STORE, Across, Analysis, Job

_TABLE, _MAPS = "attention/{dataset}/{model}.csv", "attention/{dataset}/{model}.nc"
_FIGURE = "attention/{dataset}/{model}/"
_OF_ONE = ("heads_sorted", "heads", "metrics", "aligned", "token_maps", "token_maps_common")

ANALYSIS = Analysis(
    "attention",
    AttentionSettings,
    place=30,
    jobs=(
        Job(
            "attention",
            "job:write_attention",
            inputs={"store": STORE},
            outputs={"out": _TABLE, "maps": _MAPS},
            settings=("null_rows", "offset_null_rows", "by_class", "high_norm"),
            reads_too=("attention",),
            needs=needs,
            # One reads while the other sums.
            threads=lambda study: min(2, study.node_threads),
        ),
        Job(
            "attention_model",
            "model_figures_job:write_model_figures",
            inputs={"table": _TABLE, "maps": _MAPS},
            outputs={"out": f"{_FIGURE}by_layer.png", "classes": f"{_FIGURE}token_map_classes.png"},
            optional={"classes": draws_classes},
            beside=tuple(f"{_FIGURE}{name}.png" for name in _OF_ONE),
            needs=drawing_needs,
            # Scales are common to all models.
            together=True,
        ),
    ),
    across=Across(
        "across:draw_set",
        "across:draw_overview",
        names=lambda _: ("by_layer", "families", "breakout", "averages"),
    ),
)
