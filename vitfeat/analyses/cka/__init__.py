"""Linear CKA of the layers of models, from Gram matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import GRAM, PAIR, STORE, AcrossPairs, Analysis, Job, Needs
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.needs import NUMPY_MB, READ_NUMBERS, gram_memory_mb, minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# As many layers as most models have.
_LAYERS = 24


def gram_needs(study: Study) -> Needs:
    """Return MiB for the Gram matrices of a layer, and minutes to multiply all features."""
    return Needs(gram_memory_mb(study.n_images), 120)


def pair_needs(study: Study) -> Needs:
    """Return MiB for the blocks of rows of two files, and minutes to read every layer of both."""
    n = study.n_images
    return Needs(
        NUMPY_MB + 512 + int(64 * 8 * n / 2**20), minutes(2 * _LAYERS * n**2 / READ_NUMBERS)
    )


def drawing_needs(_: Study) -> Needs:
    """Return what a figure of one pair takes."""
    return Needs(1000, 15)


ANALYSIS = Analysis(
    "cka",
    CkaSettings,
    place=10,
    vectors=True,
    jobs=(
        Job(
            "gram",
            "gram_job:write_grams",
            inputs={"store": STORE},
            outputs={"out": GRAM},
            settings=("without_cls",),
            needs=gram_needs,
            threads=lambda _: 2,
            gpu=True,
            shared=True,
        ),
        Job(
            "cka",
            "job:write_cka",
            inputs={"gram": GRAM},
            outputs={"out": f"cka/{PAIR}"},
            settings=("estimators", "batch_size", "batch_order", "seed"),
            needs=pair_needs,
        ),
        Job(
            "cka_pair_figure",
            "figures_job:draw_pair",
            inputs={"table": f"cka/{PAIR}"},
            # Not beside the tables, whose names it would have.
            outputs={"out": "similarity/{dataset}/{tokens}/pairs/{model}--{other}.png"},
            settings=("estimators", "batch_size", "batch_order", "seed"),
            needs=drawing_needs,
            together=True,
            on_request=True,
        ),
    ),
    across=AcrossPairs(
        "figures_job:draw",
        names=lambda _: ("all", "last_layer"),
        settings=("tokens", "estimators"),
    ),
)
