"""Attention metrics, and maps averaged over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.attention.across import CURVES
from vitfeat.analyses.attention.settings import AttentionSettings, draws_classes
from vitfeat.analyses.base import STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.needs import CLASS_IMAGES, NUMPY_MB, READ_NUMBERS, minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for pieces that are read and maps of every class, and minutes to read the store.

    A file of maps is put together in memory.
    """
    shape, n = study.shape, study.n_images
    classes = n // CLASS_IMAGES + 1 if study.settings(AttentionSettings).by_class else 1
    # Four maps a class.
    layer = 4 * 8 * classes * shape.heads * shape.tokens
    # About four float32 maps and an aligned one a head, beside the tokens' channels.
    numbers = shape.depth * shape.tokens * (shape.width + 8 * shape.heads)
    return Needs(
        NUMPY_MB + 800 + int((3 * layer + 1.5 * shape.depth * layer) / 2**20),
        minutes(n * numbers / READ_NUMBERS),
    )


def drawing_needs(study: Study) -> Needs:
    """Return MiB for the maps of all models, and minutes for eight figures of each."""
    return Needs(2000, 30 + 2 * len(study.config.models))


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
    across=Across((CURVES,)),
)
