"""Where a store stands, and what beside it: its manifest, and itself while it is written."""

from __future__ import annotations

import os
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

#: Hosts of objects, and of files that anybody may read.
SCHEMES = ("s3", "gs", "az", "https", "http")


#: Where remote stores are put together before and while they are uploaded.
WORKPLACE = Path(".vitfeat-uploads")


class Url(PurePosixPath):
    """Where a store stands that is on no disk: ``s3://bucket/animals/dino.zarr``.

    Parts, names and suffixes are those of a path.
    """

    def __str__(self) -> str:
        scheme, *parts = self.parts
        return f"{scheme}//{'/'.join(parts)}"


Place = Path | Url
"""Where a store stands."""

_P = TypeVar("_P", bound=PurePath)


def place_of(given: str | os.PathLike[str]) -> Place:
    """Return where something stands, given as text, path or URL.

    A URL that went through a ``Path``, which makes one slash of two, is still one.
    """
    scheme, colon, _ = os.fspath(given).partition(":/")
    return Url(given) if colon and scheme in SCHEMES else Path(given).expanduser()


def manifest_path(store: _P) -> _P:
    """Return where the manifest of a store stands: ``a.zarr`` has ``a.json``."""
    return store.with_suffix(".json")


def work_path(store: Place) -> Path:
    """Return the path of a store here while it is written: its own, or of a remote one another."""
    return store if isinstance(store, Path) else WORKPLACE.joinpath(*store.parts[1:])


def partial_path(store: Path) -> Path:
    """Return where a store stands while it is written."""
    return store.with_name(store.name + ".partial")


def claim_path(store: Url) -> Url:
    """Return the object that says who writes a remote store."""
    return store.with_name(f"{store.name}.writing")


def remedy(store: Place) -> str:
    """Say how a damaged store is made anew: a workflow does not while its manifest is there."""
    manifest = manifest_path(store)
    if isinstance(manifest, Path) and manifest.exists():
        return f"remove it and its manifest {manifest.name}, then extract it again"
    return "remove it and extract it again"
