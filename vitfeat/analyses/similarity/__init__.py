"""Models compared by several measures, with confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import GRAM, PAIR, AcrossPairs, Analysis, Job, Needs
from vitfeat.analyses.needs import CORE_FLOPS, NUMPY_MB, READ_NUMBERS, minutes
from vitfeat.analyses.similarity.settings import SimilaritySettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for a layer of a file and what is kept of layers, and minutes for two models."""
    settings, n = study.settings(SimilaritySettings), study.n_images
    m = n if settings.images is None else min(n, settings.images)
    last = settings.layers == "last"
    a, b = (1, 1) if last else (study.shape.depth, study.other_shape.depth)
    # What measures keep of every layer while they compare.
    numbers = 4 * n**2 + 8 * m**2 * (a + b + 6)
    # Two decompositions of each layer, singular values and sums of each pair; ranks and neighbours
    # of every half, which are not limited by arithmetic.
    work = 2 * 25 * m**3 * (a + b) + (4 * m**3 + 2 * settings.resamples * m**2) * a * b
    moved = 12 * settings.resamples * m**2 * (a + b)
    return Needs(
        NUMPY_MB + 200 + int(numbers / 2**20),
        minutes(work / CORE_FLOPS + moved / READ_NUMBERS / 10),
    )


def _figures(settings: SimilaritySettings) -> tuple[str, ...]:
    """Return the names of figures: those of CKA where it is among the measures."""
    return ("all", "trees", "maps", "intervals") if "cka" in settings.measures else ("all",)


ANALYSIS = Analysis(
    "similarity",
    SimilaritySettings,
    place=20,
    vectors=True,
    jobs=(
        Job(
            "similarity",
            "job:write_similarity",
            inputs={"gram": GRAM},
            outputs={"out": f"similarity/{PAIR}"},
            settings=(
                *("measures", "layers", "neighbours", "variance", "images"),
                *("resamples", "confidence", "seed"),
            ),
            needs=needs,
        ),
    ),
    across=AcrossPairs("figures_job:draw", names=_figures, settings=("tokens",)),
)
