"""Where a store stands, and what beside it: its manifest, itself while it is written, ...

Arrays that go after use stand in a folder beside the store, ``{name}.transient``, and links in the
store lead there. Whoever removes that folder leaves a store that is whole but for them: a link to
nothing says that an array was dropped. Nothing that is sealed changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from vitfeat.files import sync
from vitfeat.store.layout import TAPS

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


def transient_path(store: Path) -> Path:
    """Return where arrays stand that go after use: of ``a.zarr`` it is ``a.transient``."""
    return store.with_suffix(".transient")


def set_aside(store: Path, keep: Collection[str]) -> None:
    """Move the arrays of all taps but some of a sealed store aside, and leave links.

    They are on the disk where they went, and so are the links, when it returns.
    """
    aside = transient_path(store)
    aside.mkdir(exist_ok=True)
    sync([store.parent])
    for tap in TAPS:
        folder = store / tap
        if tap not in keep and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(aside / tap, ignore_errors=True)
            folder.rename(aside / tap)
            # Before the link: one that leads nowhere would say that the array was used and dropped.
            sync([aside, store])
            folder.symlink_to(Path("..", aside.name, tap))
    sync([aside, store])


def is_transient(store: Place, name: str) -> bool:
    """Return whether an array, or a file by its path in a store, goes after use, or went.

    Behind a URL there are no links.
    """
    return isinstance(store, Path) and (store / name.partition("/")[0]).is_symlink()


def is_dropped(store: Place, name: str) -> bool:
    """Return whether an array went after use."""
    return isinstance(store, Path) and is_transient(store, name) and not (store / name).exists()
