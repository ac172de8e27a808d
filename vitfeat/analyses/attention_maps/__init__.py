"""Attention of single images, drawn over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.attention_maps.settings import SHOWN, AttentionMapSettings
from vitfeat.analyses.base import INDEX, ROOT, Analysis, Job, Needs
from vitfeat.plan.needs import extraction_memory_mb

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for the pass of the images that are shown, and then for their figures."""
    images = study.settings(AttentionMapSettings).images
    extraction = study.config.extraction
    memory = extraction_memory_mb(
        study.shape,
        extraction.batch_size,
        ["attention"],
        extraction.dtype,
        n_images=images if isinstance(images, int) else len(images),
    )
    return Needs(memory, 60)


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
