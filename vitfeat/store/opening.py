"""Opening a store: only when it is whole, and the one that its manifest was sealed for."""

from __future__ import annotations

import copyreg
import json
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from vitfeat.errors import ReadError, StoreError, what_to_do
from vitfeat.store.files import Files, files_at
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSIONS
from vitfeat.store.paths import (
    Place,
    Url,
    claim_path,
    manifest_path,
    partial_path,
    place_of,
    remedy,
)
from vitfeat.store.reader import FeatureStore
from vitfeat.store.seal import METADATA, SHARDS, check_seal
from vitfeat.text import nearest, plural

# Stores that a message names.
_SHOWN = 4


def open_store(path: str | PathLike[str], *, check_manifest: bool = True) -> FeatureStore:
    """Open a feature store.

    Parameters
    ----------
    path
        The store's folder, ``results/features/{dataset}/{model}.zarr``, or where it stands behind
        a URL, ``s3://bucket/{model}.zarr``.
    check_manifest
        Whether the store must be the one that the manifest beside it was sealed for.

    Returns
    -------
    FeatureStore
        Lazy: metadata and coordinates are read, and the sizes of all other files; of a remote store
        these are looked at when a file is read.

    Raises
    ------
    StoreError
        When there is no store, it is unfinished, damaged, of an unknown format version, or not the
        one that its manifest was sealed for.
    """
    path = place_of(path)
    files = files_at(path)
    root = _read_metadata(files)
    attributes = root["attributes"][ATTRIBUTE]
    version = attributes["format_version"]
    if version not in FORMAT_VERSIONS:
        raise StoreError(
            f"{path}: format version {version}; this vitfeat reads "
            f"{', '.join(map(str, FORMAT_VERSIONS[:-1]))} and {FORMAT_VERSIONS[-1]}: use the one "
            f"that wrote it, or {remedy(path)}"
        )
    if path.name.endswith(".partial"):
        raise StoreError(f"{path}: an unfinished store; run its extraction again to go on")
    if "sealed" not in attributes:
        raise StoreError(f"{path}: the store was never sealed; {remedy(path)}")
    try:
        store = FeatureStore(files, root, check_seal(files, root))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        # What an earlier version sealed without a hash may hold anything.
        raise StoreError(
            f"{path}: its metadata are damaged ({_reason(error)}); {remedy(path)}"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if check_manifest:
        _check_manifest(store)
    return store


# A store that is pickled is opened anew, and held against its seal, where it is unpickled.
copyreg.pickle(FeatureStore, lambda store: (open_store, (store.path,)))


def _read_metadata(files: Files) -> dict[str, Any]:
    """Read what a store says of itself, or say what stands in its place."""
    path = files.place
    try:
        root: dict[str, Any] = json.loads(files.read(METADATA))
        attributes = root["attributes"][ATTRIBUTE]
        attributes["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path}: {_what_stands_there(path)}") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if (store := _enclosing_store(path)) is not None:
            raise StoreError(f"{path}: a part of the store {store}; give the store") from error
        raise StoreError(f"{path}: not a feature store of vitfeat ({_reason(error)})") from error
    return root


def _what_stands_there(path: Place) -> str:
    """Say in words what is in the place of a store, and what to do."""
    if isinstance(path, Url):
        with suppress(OSError):
            files_at(path.parent).read(claim_path(path).name)
            return f"the extraction has not finished ({claim_path(path).name} is beside it)"
        return "no such store; check the URL, or extract it first"
    if not path.exists():
        partial = partial_path(path)
        if partial.exists():
            return (
                f"the extraction has not finished ({partial.name} is there); run it again to go on"
            )
        if manifest_path(path).is_file():
            return (
                f"no such store, but its manifest {manifest_path(path).name} is there; remove "
                "that, and extract it again"
            )
        near = nearest(path.name, (store.name for store in path.parent.glob("*.zarr")))
        return f"no such store{near}; extract it first (snakemake, or vitfeat extract)"
    if path.is_file():
        beside = path.with_suffix(".zarr")
        if path.suffix == ".json" and beside.is_dir():
            return f"the manifest of a store; the store is {beside.name} beside it"
        if path.name == METADATA and is_store(path.parent):
            return f"the metadata of a store; the store is its folder, {path.parent}"
        return "a file, not a feature store of vitfeat: a store is a folder, NAME.zarr"
    if (store := _enclosing_store(path)) is not None:
        return f"a part of the store {store}; give the store"
    stores = sorted(p for pattern in ("*.zarr", "*/*.zarr") for p in path.glob(pattern))
    if stores:
        shown = ", ".join(str(p.relative_to(path)) for p in stores[:_SHOWN])
        more = f" and {len(stores) - _SHOWN} more" if len(stores) > _SHOWN else ""
        return f"a folder of {plural(len(stores), 'store')} ({shown}{more}); give one of them"
    if any(path.glob(f"*/{METADATA}")):
        return (
            f"not a feature store of vitfeat: its metadata ({METADATA}) are missing; copy the "
            f"store again, or {remedy(path)}"
        )
    return "not a feature store of vitfeat: a folder without any; stores are named NAME.zarr"


def _enclosing_store(path: Place) -> Path | None:
    if isinstance(path, Url):
        return None
    with suppress(ReadError):  # a folder above that may not be looked into
        return next((p for p in path.parents if is_store(p)), None)
    return None


def _unreadable(path: Place, error: OSError) -> ReadError:
    where = f"{error.filename}: " if error.filename else ""
    reason = f"{where}{error.strerror or error}"
    then = "" if isinstance(path, Url) else f"; {what_to_do(error)}"
    return ReadError(f"{path}: the store cannot be read ({reason}){then}")


def _reason(error: Exception) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__)[:200]


def _check_manifest(store: FeatureStore) -> None:
    """Compare with the manifest beside the store, where the workflow left one."""
    path = manifest_path(store.path)
    try:
        content = files_at(path.parent).read(path.name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    except OSError as error:
        # Who may not list a bucket is told of no object that it is not there.
        if store.files.is_remote and isinstance(error, PermissionError):
            return
        raise _unreadable(path, error) from error
    try:
        asked = json.loads(content)
        fingerprint = str(asked["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not a manifest of the store beside it; remove it, and extract it again"
        ) from error
    if fingerprint != store.fingerprint:
        raise StoreError(
            f"{store.path}: sealed for other settings than its manifest {path.name} says "
            f"({store.fingerprint[:12]}… against {fingerprint[:12]}…); {remedy(store.path)}"
        )


def is_store(place: Place) -> bool:
    """Return whether a place is a store of ours, in whatever state: only such may be replaced."""
    if said_of(place) is not None:
        return True
    return isinstance(place, Path) and (place / SHARDS / METADATA).is_file()


def said_of(place: Place) -> dict[str, Any] | None:
    """Return what a store of ours, in whatever state, says of itself; None of anything else."""
    try:
        attributes: dict[str, Any] = json.loads(files_at(place).read(METADATA))["attributes"]
        return dict(attributes[ATTRIBUTE])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        # Who may not list a bucket is told of no object that it is not there.
        if isinstance(place, Url):
            return None
        raise _unreadable(place, error) from error
