"""vitfeat: look inside Vision Transformers.

>>> import vitfeat
>>> store = vitfeat.open("results/features/digits/demo-dino.zarr")  # doctest: +SKIP
>>> store.sel(label="3", layer="last")["cls"]  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitfeat.analyses.settings import Settings as Settings
    from vitfeat.store.reader import FeatureStore

__version__ = "0.1.0"

__all__ = ["Settings", "__version__", "open"]


def open(path: str | Path) -> FeatureStore:
    """Open a feature store; :func:`vitfeat.store.opening.open_store` documents it."""
    # Here and not above: most jobs of a workflow import vitfeat without needing Zarr.
    from vitfeat.store.opening import open_store

    return open_store(path)


def __getattr__(name: str) -> object:
    if name == "Settings":
        from vitfeat.analyses.settings import Settings

        return Settings
    raise AttributeError(f"module 'vitfeat' has no attribute {name!r}")
