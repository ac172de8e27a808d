"""Arrays of a store that are kept until they were used: where they stand, and that they went.

Such arrays stand in a folder beside the store, ``{name}.transient``, and links in the store lead
there. Whoever removes that folder leaves a store that is whole but for them: a link to nothing says
that an array was dropped. Nothing that is sealed changes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from vitfeat.files import sync
from vitfeat.store.layout import TAPS
from vitfeat.store.paths import Place


def transient_path(store: Path) -> Path:
    """Return where arrays stand that go after use: of ``a.zarr`` it is ``a.transient``."""
    return store.with_suffix(".transient")


def set_aside(store: Path, keep: Collection[str]) -> None:
    """Move the arrays of all taps but some into a folder of their own, and leave links.

    They are on the disk where they went, and so are the links, when it returns.

    Parameters
    ----------
    store
        A sealed store.
    keep
        The taps that stay.
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
