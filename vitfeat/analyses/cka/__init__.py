"""Linear CKA of the layers of models, from Gram matrices."""

from vitfeat.analyses.base import GRAM, PAIR, STORE, AcrossPairs, Analysis, Job
from vitfeat.analyses.cka.needs import drawing_needs, gram_needs, pair_needs
from vitfeat.analyses.cka.settings import CkaSettings

ANALYSIS = Analysis(
    "cka",
    CkaSettings,
    place=10,
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
            settings=("estimators",),
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
