"""Where a store stands, and what beside it: its manifest, and itself while it is written."""

from __future__ import annotations

from pathlib import Path


def manifest_path(store: Path) -> Path:
    """Return where the manifest of a store stands: ``a.zarr`` has ``a.json``."""
    return store.with_suffix(".json")


def partial_path(store: Path) -> Path:
    """Return where a store stands while it is written."""
    return store.with_name(store.name + ".partial")


def remedy(store: Path) -> str:
    """Say how a damaged store is made anew: a workflow does not while its manifest is there."""
    manifest = manifest_path(store)
    if manifest.exists():
        return f"remove it and its manifest {manifest.name}, then extract it again"
    return "remove it and extract it again"
