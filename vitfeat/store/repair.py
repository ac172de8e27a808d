"""What is whole of a damaged store, taken over by the one that replaces it.

Shards say of themselves which store and array they are of, so that nothing else of the damaged one
need be whole: metadata, coordinates and seal are made anew. A block of which a chunk is damaged is
pushed again; what other blocks have of the same shard goes on as their pieces.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import StoreError
from vitfeat.files import write_files
from vitfeat.store.arrays import ArraySpec
from vitfeat.store.files import LocalFiles
from vitfeat.store.layout import ATTRIBUTE, Layout
from vitfeat.store.progress import Marker, Progress
from vitfeat.store.seal import METADATA, check_files, has_own_seal, sealed_facts
from vitfeat.store.shards import place_of_shard, whole_shard
from vitfeat.store.stored_array import StoredArray, UnreadableError


def keep_what_is_said(old: Path, new: Path) -> None:
    """Take over what a store says of how it came about, if it is of the same request and whole."""
    root, begun = _root(old), json.loads((new / METADATA).read_text("utf-8"))
    if root is None:
        return
    said, asked = root["attributes"][ATTRIBUTE], begun["attributes"][ATTRIBUTE]
    if said["request"] == asked["request"]:
        asked |= {key: said[key] for key in ("notes", "versions")}
        (new / METADATA).write_text(json.dumps(begun, indent=2), "utf-8")


def image_ids(store: Path) -> list[str]:
    """Return the images of a store that may be damaged: as far as they can be read."""
    root = json.loads((store / METADATA).read_text("utf-8"))
    try:
        node = root["consolidated_metadata"]["metadata"]["image_id"]
        return [str(name) for name in StoredArray(LocalFiles(store), "image_id", node)[:]]
    except (KeyError, TypeError, ValueError, StoreError) as error:
        raise StoreError(
            f"{store}: neither its images nor an index of them can be read; give the index that it "
            "was made from (--index), or remove it and extract it again"
        ) from error


def adopt(old: Path, new: Path, layout: Layout) -> None:
    """Take over the shards of a store that are whole, and say which blocks need not be pushed.

    `new` is an unfinished store without any block, with the arrays and the request of `old`, of
    which shards of other requests are not taken.
    """
    fingerprint = json.loads((new / METADATA).read_text("utf-8"))["attributes"][ATTRIBUTE][
        "fingerprint"
    ]
    sealed = _sealed(old)
    arrays = {}
    lost: set[tuple[str, int]] = set()
    for spec in layout.arrays:
        facts = _facts(old, spec, layout, fingerprint)
        if spec.name in sealed and len(sealed[spec.name]) == len(facts):
            # Of the same request, but with other numbers.
            facts[(facts != sealed[spec.name]).any(axis=1)] = -1
        node = json.loads((new / spec.name / METADATA).read_text("utf-8"))
        array = StoredArray(LocalFiles(old), spec.name, node, None, fingerprint, facts)
        arrays[spec.name] = array
        for block in range(layout.n_blocks):
            if _read(array, spec, layout, block) is None:
                lost.add((spec.name, block))
        for shard in range(layout.n_shards(spec)):
            blocks = layout.blocks_of(spec, shard)
            if facts[shard, 0] >= 0 and not any((spec.name, block) in lost for block in blocks):
                file = layout.file_of(spec, shard)
                _copy(old / file, new / file)
    _mark(layout, Progress(new, layout), arrays, lost)


def _mark(
    layout: Layout,
    progress: Progress,
    arrays: dict[str, StoredArray],
    lost: set[tuple[str, int]],
) -> None:
    """Write markers, and pieces of blocks whose shards lack what others have of them."""
    lost_blocks = {block for _, block in lost}
    for block in range(layout.n_blocks):
        if block in lost_blocks:
            continue
        shards = ((spec, s) for spec in layout.arrays for s in layout.shards_of(spec, block))
        beside = {(spec.name, b) for spec, s in shards for b in layout.blocks_of(spec, s)}
        parts = {}
        if beside & lost:
            for spec in filter(layout.is_gathered, layout.arrays):
                read = _read(arrays[spec.name], spec, layout, block)
                assert read is not None  # it was read before
                parts[spec.name] = read
        checksum = 0, 0
        if parts:
            pieces = progress.pieces(block, parts)
            checksum = pieces.checksum
            write_files([pieces] if pieces.parts else [], progress.folder)
        progress.write_marker(block, Marker(len(layout.rows(block)), (), *checksum))


def _read(array: StoredArray, spec: ArraySpec, layout: Layout, block: int) -> NDArray[Any] | None:
    """Return what a block has of an array, None where it is damaged."""
    entries = layout.entries(spec, layout.rows(block))
    try:
        values: NDArray[Any] = array[entries.start : entries.stop]
    except UnreadableError:
        return None
    return values if np.isfinite(values).all() else None


def _facts(old: Path, spec: ArraySpec, layout: Layout, fingerprint: str) -> NDArray[np.int64]:
    """Return int64 (shard, 2), what each shard says of itself; -1 of one that says nothing."""
    counts = layout.chunk_counts(spec)
    facts = np.full((layout.n_shards(spec), 2), -1)
    for shard in range(len(facts)):
        used = -(-len(layout.entries_of(spec, shard)) // layout.chunk_rows(spec))
        found = whole_shard(
            old / layout.file_of(spec, shard),
            counts,
            (used, *counts[1:]),
            place_of_shard(fingerprint, spec.name, shard),
            every_chunk=False,
        )
        if found is not None:
            facts[shard] = found
    return facts


def _sealed(old: Path) -> dict[str, NDArray[np.int64]]:
    """Return what the seal says of the shards of each array, nothing where it is damaged."""
    root = _root(old)
    if root is None:
        return {}
    files = LocalFiles(old)
    with suppress(StoreError):
        sealed = root["attributes"][ATTRIBUTE]["sealed"]
        check_files(files, {"files": _of_seal(sealed)}, metadata=True)
        return sealed_facts(files, root)
    return {}


def _of_seal(sealed: dict[str, Any]) -> dict[str, str]:
    return {name: sha for name, sha in sealed["files"].items() if name.startswith("seal/")}


def _root(store: Path) -> dict[str, Any] | None:
    """Return a store's own metadata, None where they are not those that it was sealed with."""
    try:
        root: dict[str, Any] = json.loads((store / METADATA).read_text("utf-8"))
        return root if has_own_seal(root) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _copy(source: Path, target: Path) -> None:
    """Have a file stand in a second place, by a link where the disk has such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
