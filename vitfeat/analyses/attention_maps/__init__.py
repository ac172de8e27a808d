"""Attention of single images, drawn over them."""

from vitfeat.analyses.attention_maps.needs import needs
from vitfeat.analyses.attention_maps.settings import SHOWN, AttentionMapSettings
from vitfeat.analyses.base import INDEX, ROOT, Analysis, Job

ANALYSIS = Analysis(
    "attention_maps",
    AttentionMapSettings,
    place=40,
    # These few images go through the model in a pass of their own, into a store of their own:
    # other images would else be another store of all.
    jobs=(
        Job(
            "attention_maps",
            "job:write_attention_maps",
            inputs={"index": INDEX, "root": ROOT},
            outputs={
                "store": "attention_maps/stores/{dataset}/{model}.zarr",
                "manifest": "attention_maps/stores/{dataset}/{model}.json",
                "out": "attention_maps/{dataset}/{model}",
            },
            folders=frozenset({"out"}),
            settings=("images", *SHOWN, "single_maps"),
            needs=needs,
            threads=lambda study: study.node_threads,
            gpu=True,
            label=True,
        ),
    ),
)
