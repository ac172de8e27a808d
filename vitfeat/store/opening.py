"""Opening a store: only when it is whole, and the one that its manifest was sealed for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zarr

from vitfeat.errors import StoreError
from vitfeat.store import codec
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSIONS
from vitfeat.store.reader import FeatureStore
from vitfeat.store.writer import partial_path


def open_store(path: str | Path, *, check_manifest: bool = True) -> FeatureStore:
    """Open a feature store.

    Parameters
    ----------
    path
        The store's folder, ``results/features/{dataset}/{model}.zarr``.
    check_manifest
        Whether the store must be the one that the manifest beside it was sealed for.

    Returns
    -------
    FeatureStore
        Lazy: only metadata is read.

    Raises
    ------
    StoreError
        When there is no store, it is unfinished, damaged, of an unknown format version, or not the
        one that its manifest was sealed for.
    """
    path = Path(path)
    if not path.exists():
        partial = partial_path(path)
        if partial.exists():
            raise StoreError(
                f"{path}: the extraction has not finished ({partial.name} is there); run it again "
                "to go on"
            )
        raise StoreError(f"{path}: no such store; extract it first (snakemake, or vitfeat extract)")
    try:
        with codec.pipeline():
            group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        attributes: Any = group.attrs.asdict()[ATTRIBUTE]
        version = attributes["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise StoreError(f"{path}: not a feature store of vitfeat ({reason})") from error
    if version not in FORMAT_VERSIONS:
        raise StoreError(
            f"{path}: format version {version}; this vitfeat reads "
            f"{', '.join(map(str, FORMAT_VERSIONS[:-1]))} and {FORMAT_VERSIONS[-1]}: extract the "
            "store again, or use the "
            "vitfeat that wrote it"
        )
    if "sealed" not in attributes:
        raise StoreError(f"{path}: the store was never sealed; remove it and extract again")
    store = FeatureStore(path, group, attributes)
    for name, block in store.missing_shards():
        raise StoreError(
            f"{path}: block {block} of {name} is missing; remove the store and extract it again"
        )
    if check_manifest:
        _check_manifest(store)
    return store


def _check_manifest(store: FeatureStore) -> None:
    """Compare with the manifest beside the store, where the workflow left one."""
    path = manifest_path(store.path)
    if not path.is_file():
        return
    try:
        asked = json.loads(path.read_text("utf-8"))["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest of a store; remove it and run again") from error
    if asked != store.fingerprint:
        raise StoreError(
            f"{store.path}: sealed for other settings than its manifest {path.name} says "
            f"({store.fingerprint[:12]}… against {asked[:12]}…); extract it again"
        )


def is_store(path: Path) -> bool:
    """Return whether a folder is a store of ours, in whatever state: only such may be replaced."""
    try:
        metadata = json.loads((path / "zarr.json").read_text("utf-8"))
        return ATTRIBUTE in metadata["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def manifest_path(store: Path) -> Path:
    """Return where the manifest of a store stands: ``a.zarr`` has ``a.json``."""
    return store.with_suffix(".json")
