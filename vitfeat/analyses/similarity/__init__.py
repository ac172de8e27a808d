"""Models compared by several measures, with confidence intervals."""

from vitfeat.analyses.base import GRAM, PAIR, AcrossPairs, Analysis, Job
from vitfeat.analyses.similarity.needs import needs
from vitfeat.analyses.similarity.settings import SimilaritySettings


def _figures(settings: SimilaritySettings) -> tuple[str, ...]:
    """Return the names of figures: those of CKA where it is among the measures."""
    return ("all", "trees", "maps", "intervals") if "cka" in settings.measures else ("all",)


ANALYSIS = Analysis(
    "similarity",
    SimilaritySettings,
    place=20,
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
