"""vitfeat: look inside Vision Transformers.

>>> import vitfeat
>>> store = vitfeat.extract("dino-b16", "photos/", "photos.zarr")  # doctest: +SKIP
>>> store = vitfeat.open("results/features/digits/demo-dino.zarr")  # doctest: +SKIP
>>> store.sel(label="3", layer="last")["cls"]  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitfeat.analyses.settings import Settings as Settings
    from vitfeat.explorer.widget import widget as widget
    from vitfeat.notebook.extract import extract as extract
    from vitfeat.notebook.extract import import_features as import_features
    from vitfeat.notebook.scores import attention_metrics as attention_metrics
    from vitfeat.notebook.scores import cka as cka
    from vitfeat.notebook.scores import cluster_scores as cluster_scores
    from vitfeat.notebook.scores import jf as jf
    from vitfeat.notebook.scores import knn as knn
    from vitfeat.notebook.scores import linear_probe as linear_probe
    from vitfeat.notebook.scores import pck as pck
    from vitfeat.notebook.scores import retrieval_map as retrieval_map
    from vitfeat.store.reader import FeatureStore

__version__ = "0.1.0"

__all__ = [
    "Settings",
    "__version__",
    "attention_metrics",
    "cka",
    "cluster_scores",
    "extract",
    "import_features",
    "jf",
    "knn",
    "linear_probe",
    "open",
    "pck",
    "retrieval_map",
    "widget",
]

# Imported when they are asked for: most jobs of a workflow import vitfeat for none of them.
_HOMES = {
    "Settings": "vitfeat.analyses.settings",
    "extract": "vitfeat.notebook.extract",
    "import_features": "vitfeat.notebook.extract",
    "widget": "vitfeat.explorer.widget",
}
_SCORES = "vitfeat.notebook.scores"


def open(path: str | Path) -> FeatureStore:
    """Open a feature store; :func:`vitfeat.store.opening.open_store` documents it."""
    # Here and not above: most jobs of a workflow import vitfeat without needing Zarr.
    from vitfeat.store.opening import open_store

    return open_store(path)


if not TYPE_CHECKING:  # to type checkers, there is nothing beside what is imported above

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'vitfeat' has no attribute {name!r}")
        return getattr(import_module(_HOMES.get(name, _SCORES)), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
