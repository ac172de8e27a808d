"""A store's seal: what its files were when it was finished, and whether they still are.

Metadata and coordinates are small: the seal has their SHA-256. Shards are many and large: it has
their sizes, which a copy that broke off changes, and a digest of the checksums of their chunks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from vitfeat.errors import StoreError
from vitfeat.files import sha256_of, write_files
from vitfeat.store.create import write_coordinate
from vitfeat.store.files import Files
from vitfeat.store.layout import ATTRIBUTE, SEPARATOR, Layout, shard_key
from vitfeat.store.paths import Place, is_transient, mending
from vitfeat.store.progress import PROGRESS
from vitfeat.store.provenance import digest
from vitfeat.store.stored_array import StoredArray
from vitfeat.text import plural

#: The file of a store's, a group's or an array's metadata.
METADATA = "zarr.json"

#: Subgroup of what the seal alone needs.
SEAL_GROUP = "seal"

#: The facts of every shard, array by array in the order of their names.
SHARDS = f"{SEAL_GROUP}/shards"


def write_seal(
    folder: Path,
    layout: Layout,
    attributes: dict[str, Any],
    facts: Mapping[str, NDArray[np.int64]],
) -> None:
    """Write down what the files of a store are, all shards written, and all metadata in one file.

    `attributes`, to which ``sealed`` is added, is what its attribute of ours becomes; `facts` are
    int64 (shard, 2) by array.
    """
    facts = dict(sorted(facts.items()))
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    write_files(_seal_group(np.concatenate([*facts.values()]), folder), folder / PROGRESS)
    root = json.loads((folder / METADATA).read_text("utf-8"))
    # One file for all metadata, as xarray looks for; Zarr v3 is about to specify it.
    nodes = {
        node.parent.relative_to(folder).as_posix(): json.loads(node.read_text("utf-8"))
        for node in (*folder.glob(f"*/{METADATA}"), *folder.glob(f"*/*/{METADATA}"))
    }
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {name: nodes[name] for name in sorted(nodes, key=lambda n: (n.count("/"), n))},
    }
    attributes["sealed"] = {
        "arrays": {
            a.name: {
                "shape": [layout.length(a), *a.shape],
                "dtype": a.dtype,
                "shards": layout.n_shards(a),
                "bytes": int(facts[a.name][:, 0].sum()),
            }
            for a in layout.arrays
        },
        "files": {name: sha256_of(folder / name) for name in _small_files(root, facts)},
    }
    root["attributes"][ATTRIBUTE] = attributes
    attributes["sealed"]["sha256"] = digest(root)
    text = json.dumps(root, indent=2).encode()
    write_files([(folder / METADATA, [text])], folder / PROGRESS)


def _seal_group(facts: NDArray[np.int64], folder: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Yield the files of the group.

    Zarr makes them in memory: into a folder it writes under names of its own first, and a power cut
    may bring such a name back.
    """
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files))
    group.create_group(SEAL_GROUP)
    write_coordinate(group, SHARDS, "shard fact", facts)
    for name, content in sorted(files.items()):
        if name.startswith(f"{SEAL_GROUP}/"):
            yield folder / name, [content.to_bytes()]


def has_own_seal(root: Mapping[str, Any]) -> bool:
    """Return whether a store's own metadata are those that it was sealed with."""
    attributes = root["attributes"][ATTRIBUTE]
    sealed = dict(attributes.get("sealed", {}))
    expected = sealed.pop("sha256", None)
    ours = {**root["attributes"], ATTRIBUTE: {**attributes, "sealed": sealed}}
    return expected is not None and digest({**root, "attributes": ours}) == expected


def _small_files(root: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[str]:
    """Yield every file but the shards of features and the store's own metadata."""
    for name, node in sorted(root["consolidated_metadata"]["metadata"].items()):
        yield f"{name}/{METADATA}"
        if node["node_type"] == "array" and name not in features:
            yield f"{name}/{shard_key(0, len(node['shape']))}"


def _shard_sizes(
    folder: Path, n_shards: int, ndim: int, separator: str = SEPARATOR
) -> NDArray[np.int64]:
    """Return the bytes of each shard in an array's folder, -1 of one that is not there."""
    keys = (shard_key(shard, ndim, separator) for shard in range(n_shards))
    if separator == "/":  # a folder for each shard
        return np.fromiter((_size(folder / key) for key in keys), np.int64, n_shards)
    try:
        with os.scandir(folder) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        sizes = {}
    return np.fromiter((sizes.get(key, -1) for key in keys), np.int64, n_shards)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def check_seal(files: Files, root: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Hold the files of a store against its seal, which its own metadata file, `root`, has.

    Of a remote store these are all that is read before features are: shards are held against their
    sizes when they are read, and the metadata of arrays stand in the root's once more. Returned are
    by array, int64 (shard, 2), the facts of each shard; nothing of stores of earlier versions.
    """
    attributes = root["attributes"][ATTRIBUTE]
    sealed = attributes["sealed"]
    place = files.place
    if digest(attributes["request"]) != attributes["fingerprint"]:
        raise _altered(place)
    if "sha256" not in sealed:
        if not isinstance(place, Path):
            raise StoreError(
                f"{place}: of format version {attributes['format_version']}, which is read from a "
                "disk only; copy it to one, or extract it again"
            )
        _check_before_version_4(place, root)
        return {}
    if not has_own_seal(root):
        raise _altered(place)
    check_files(files, sealed, metadata=not files.is_remote)
    facts = sealed_facts(files, root)
    for name, array in sorted(sealed["arrays"].items()):
        if isinstance(place, Path):
            sizes = _shard_sizes(place / name, array["shards"], len(array["shape"]))
            expected = facts[name][:, 0]
            if is_transient(place, name):
                # Dropped, or in this moment: others read what stays.
                expected = np.where(sizes < 0, sizes, expected)
            _compare(place, name, sizes, expected)
    return facts


def sealed_facts(files: Files, root: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Return by array what the seal has of its shards, int64 (shard, 2)."""
    recorded = StoredArray(files, SHARDS, root["consolidated_metadata"]["metadata"][SHARDS])[:]
    facts, start = {}, 0
    for name, array in sorted(root["attributes"][ATTRIBUTE]["sealed"]["arrays"].items()):
        facts[name] = recorded[start : start + array["shards"]]
        start += array["shards"]
    return facts


def check_files(files: Files, sealed: Mapping[str, Any], *, metadata: bool) -> None:
    """Hold every small file of a store against its hash: coordinates, and metadata if asked."""
    names = [n for n in sealed["files"] if metadata or not n.endswith(f"/{METADATA}")]
    place = files.place
    try:
        files.fetch(names)
    except FileNotFoundError as error:
        raise StoreError(f"{place}: {error}; {_remedy(place)}") from None
    for name in names:
        try:
            content = files.read(name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if is_transient(place, name):
                continue
            raise StoreError(f"{place}: {name} is missing; {_remedy(place)}") from None
        if hashlib.sha256(content).hexdigest() != sealed["files"][name]:
            what = "not as it was when the store was sealed" if content else "empty"
            raise StoreError(f"{place}: {name} is {what}; {_remedy(place)}")


def _check_before_version_4(path: Path, root: Mapping[str, Any]) -> None:
    """Hold a store of an earlier version against what its seal has: the bytes of each array."""
    sealed = root["attributes"][ATTRIBUTE]["sealed"]["arrays"]
    for name, node in root["consolidated_metadata"]["metadata"].items():
        if is_transient(path, name):
            continue
        if not (path / name / METADATA).is_file():
            raise StoreError(f"{path}: {name}/{METADATA} is missing; {_remedy(path)}")
        if node["node_type"] != "array":
            continue
        n_shards = sealed[name]["shards"] if name in sealed else 1
        sizes = _shard_sizes(path / name, n_shards, len(node["shape"]), "/")
        # What is not known is at least not empty.
        _compare(path, name, sizes, np.maximum(sizes, 1))
        if name in sealed:
            n_bytes = int(sizes.sum()) + _size(path / name / METADATA)
            if n_bytes != sealed[name]["bytes"]:
                raise StoreError(
                    f"{path}: {name} has {n_bytes:,} bytes, {sealed[name]['bytes']:,} when it was "
                    f"sealed; {_remedy(path)}"
                )


def _compare(path: Path, name: str, sizes: NDArray[np.int64], expected: NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(sizes != expected)
    if not len(wrong):
        return
    first = int(wrong[0])
    if sizes[first] < 0:
        what = "is missing"
    elif not sizes[first]:
        what = "is empty"
    else:
        what = f"has {sizes[first]:,} bytes, {expected[first]:,} when it was sealed"
    more = f" ({plural(len(wrong) - 1, 'more shard')} like it)" if len(wrong) > 1 else ""
    raise StoreError(f"{path}: shard {first} of {name} {what}{more}; {_remedy(path)}")


def _remedy(path: Place) -> str:
    repair = mending(path)
    return f"copy the store again{',' if isinstance(path, Path) else ', or'} {repair}"


def _altered(path: Place) -> StoreError:
    return StoreError(
        f"{path}: its metadata ({METADATA}) are not as they were when the store was sealed; "
        f"{_remedy(path)}"
    )
