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

from vitfeat.errors import StoreError
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
    """Return the path of a store here while it is written.

    Its own; of a link where it leads, so that the link stays; of a remote one another.
    """
    if isinstance(store, Url):
        return WORKPLACE.joinpath(*store.parts[1:])
    return store.resolve() if store.is_symlink() else store


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


def mending(store: Place) -> str:
    """Say what helps where files of a store are damaged: what is whole of it need not go."""
    return f"run vitfeat repair, or {remedy(store)}" if isinstance(store, Path) else remedy(store)


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
            try:
                folder.rename(aside / tap)
            except OSError as error:
                raise StoreError(
                    f"{store}: {tap} cannot be moved to {aside} ({error.strerror}); a store that "
                    "is a link must stand on the same disk as the link"
                ) from error
            # Before the link: one that leads nowhere would say that the array was used and dropped.
            sync([aside, store])
            _link_aside(store, tap)
    sync([aside, store])


def finish_setting_aside(store: Path, taps: Collection[str]) -> None:
    """Make the links of arrays that a killed job has moved aside without."""
    for tap in taps:
        if (transient_path(store) / tap).is_dir() and not os.path.lexists(store / tap):
            _link_aside(store, tap)


def _link_aside(store: Path, tap: str) -> None:
    # The store may be a link itself.
    aside = os.path.relpath(transient_path(store).resolve(), store.resolve())
    (store / tap).symlink_to(Path(aside, tap))


def is_transient(store: Place, name: str) -> bool:
    """Return whether an array, or a file by its path in a store, goes after use, or went.

    Behind a URL there are no links.
    """
    return isinstance(store, Path) and (store / name.partition("/")[0]).is_symlink()


def is_dropped(store: Place, name: str) -> bool:
    """Return whether an array went after use."""
    return isinstance(store, Path) and is_transient(store, name) and not (store / name).exists()
