"""Writing a store: created beside its place, filled block by block, sealed, moved into place.

What stands under a store's own path is always whole. While it is written it stands under
``{path}.partial``; a block counts when all of its shards are on disk and its marker is written
behind them, so that a killed job goes on at the first missing block.

Arrays of some images only, of regions, or of grids of different sizes have other numbers of entries
in every block, so that their shards reach over blocks. What a block has of them is kept beside the
block's marker, and put into shards when the store is sealed: whole shards by one writer here, too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.errors import StoreError
from vitfeat.final_norm import FinalNorm
from vitfeat.store import codec, provenance
from vitfeat.store.arrays import ArraySpec, Geometry
from vitfeat.store.create import create
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION, Layout
from vitfeat.store.paths import partial_path
from vitfeat.store.seal import shard_sizes, write_seal
from vitfeat.text import size

_PROGRESS = ".progress"


@dataclass(frozen=True)
class Rows:
    """What the rows of a store are.

    Attributes
    ----------
    image_id
        Path of each image relative to the dataset's root.
    label
        int64 (image,); -1 without a label.
    classes
        Name of each label that is there.
    skipped
        (image id, reason) of images that were left out.
    grid_shapes
        int64 (image, 2): rows and columns of each image's token grid, where they differ.
    regions
        int64 (region,): which of the dataset's regions the entries of ``regions`` are, where there
        are some.
    """

    image_id: Sequence[str]
    label: NDArray[np.int64]
    classes: Mapping[int, str]
    skipped: Sequence[tuple[str, str]]
    grid_shapes: NDArray[np.int64] | None = None
    regions: NDArray[np.int64] | None = None


class StoreWriter:
    """Fills one store, block by block, in any order.

    Use :func:`open_writer`, which locks the store and resumes what is there.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self._partial = partial_path(path)
        with codec.pipeline(reproducible=True):
            group = zarr.open_group(self._partial, mode="r+")
            self._arrays = {a.name: _array(group, a.name) for a in layout.arrays}

    def missing_blocks(self) -> list[int]:
        """Return the blocks that are not yet wholly on disk."""
        # A quota or a power cut leaves empty files.
        missing = [not self._is_marked(b) for b in range(self._layout.n_blocks)]
        for spec in self._layout.arrays:
            if spec.starts is None:
                sizes = shard_sizes(
                    self._partial / spec.name, self._layout.n_blocks, 1 + len(spec.shape)
                )
                missing = [m or bool(n < 1) for m, n in zip(missing, sizes, strict=True)]
        return [block for block, lacking in enumerate(missing) if lacking]

    def write_block(
        self, block: int, arrays: Mapping[str, NDArray[Any]], *, forward_images: int
    ) -> None:
        """Write one block of every array, whole shards each.

        Parameters
        ----------
        block
            Number of the block.
        arrays
            By array name: (rows of the block that the array holds, ...), the store's element types.
        forward_images
            How many images were pushed through the model to make this block.

        Raises
        ------
        StoreError
            When the disk is full or refuses.
        """
        rows = self._layout.rows(block)
        try:
            for spec in self._layout.arrays:
                if spec.starts is None:
                    self._write_shard(spec, block, rows, arrays[spec.name])
                elif self._layout.entries(spec, rows):
                    piece = np.ascontiguousarray(arrays[spec.name])
                    self._piece(spec, block).write_bytes(piece.data)
            # Behind the shards, and at once: a full disk would leave an empty marker.
            marker = self._marker(block)
            marker.with_suffix(".tmp").write_text(str(forward_images))
            marker.with_suffix(".tmp").rename(marker)
        except (OSError, RuntimeError) as error:  # zarrs reports a full disk as a RuntimeError
            raise self._write_error(error, f"block {block}") from error

    def note(self, line: str) -> None:
        """Keep a line about how the store came about, beside those that it was created with."""
        group = zarr.open_group(self._partial, mode="r+")
        attributes: Any = group.attrs.asdict()[ATTRIBUTE]
        if line not in attributes["notes"]:
            group.attrs[ATTRIBUTE] = {**attributes, "notes": [*attributes["notes"], line]}

    def seal(self) -> dict[str, Any]:
        """Check that all is there, record it, and move the store to its place.

        Returns
        -------
        dict
            The manifest: small, JSON-able, the same as recorded in the store.
        """
        if missing := self.missing_blocks():
            raise StoreError(
                f"{self._path}: {len(missing)} of {self._layout.n_blocks} blocks are not written; "
                "run the extraction again to go on"
            )
        self._write_gathered()
        group = zarr.open_group(self._partial, mode="r+")
        attributes: Any = group.attrs.asdict()[ATTRIBUTE]
        attributes["forward_images"] = sum(
            int(self._marker(b).read_text()) for b in range(self._layout.n_blocks)
        )
        write_seal(self._partial, self._layout, attributes)
        replaced = self._path.with_name(self._path.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if self._path.exists():
            self._path.rename(replaced)
        self._partial.rename(self._path)
        # Behind the move: a job killed in between finds its blocks again.
        shutil.rmtree(self._path / _PROGRESS)
        shutil.rmtree(replaced, ignore_errors=True)
        return manifest(self._path, attributes)

    def _write_gathered(self) -> None:
        """Put what the blocks have of arrays whose shards reach over blocks into shards."""
        for spec in (a for a in self._layout.arrays if a.starts is not None):
            length, step = self._layout.length(spec), self._layout.shard_rows(spec)
            try:
                for shard in range(self._layout.n_shards(spec)):
                    entries = range(shard * step, min((shard + 1) * step, length))
                    self._write_shard(spec, shard, entries, self._gather(spec, entries))
            except (OSError, RuntimeError) as error:
                raise self._write_error(error, f"shard {shard} of {spec.name}") from error

    def _gather(self, spec: ArraySpec, entries: range) -> NDArray[Any]:
        """Return some entries of an array, from what their blocks have of it."""
        first, last = (spec.row_of(e) // self._layout.block for e in (entries[0], entries[-1]))
        pieces = []
        for block in range(first, last + 1):
            held = self._layout.entries(spec, self._layout.rows(block))
            start, stop = max(held.start, entries.start), min(held.stop, entries.stop)
            if start < stop:
                piece = np.memmap(
                    self._piece(spec, block), spec.dtype, "r", shape=(len(held), *spec.shape)
                )
                pieces.append(piece[start - held.start : stop - held.start])
        return np.concatenate(pieces)

    def _write_shard(
        self, spec: ArraySpec, shard: int, entries: range, values: NDArray[Any]
    ) -> None:
        array = self._arrays[spec.name]
        # Zarr would read half a shard that a killed job left, to fill up a short one.
        key = codec.shard_key(shard, 1 + len(spec.shape))
        self._partial.joinpath(spec.name, key).unlink(missing_ok=True)
        array[entries.start : entries.stop] = values

    def _piece(self, spec: ArraySpec, block: int) -> Path:
        return self._marker(block).with_suffix(f".{spec.name.replace('/', '.')}")

    def _is_marked(self, block: int) -> bool:
        marker = self._marker(block)
        return marker.exists() and marker.stat().st_size > 0

    def _marker(self, block: int) -> Path:
        return self._partial / _PROGRESS / f"{block:06d}"

    def _write_error(self, error: BaseException, place: str) -> StoreError:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        free = size(shutil.disk_usage(self._partial).free)
        what = f"no space left on the disk ({free} free)" if full else str(error)
        return StoreError(
            f"{self._path}: {place} could not be written: {what}; the blocks before it are kept: "
            "make room and run the extraction again to go on"
        )


@contextmanager
def open_writer(
    path: Path,
    layout: Layout,
    geometry: Geometry,
    rows: Rows,
    request: Mapping[str, Any],
    model: str,
    *,
    weights: Mapping[str, Any] | None = None,
    final_norm: FinalNorm | None = None,
    normalised_by: str = "",
    notes: Sequence[str] = (),
    replace: bool = False,
) -> Iterator[StoreWriter]:
    """Lock a store for writing; create it, or go on with an interrupted one.

    Parameters
    ----------
    path
        Where the finished store will stand.
    layout, geometry, rows
        What it holds.
    request
        What decides its numbers (see :mod:`vitfeat.store.provenance`).
    model
        The model's id. Recorded, not compared: the weights' fingerprint is.
    weights
        Where the weights came from: file, SHA-256, repository, revision. Recorded, not compared.
    final_norm
        The norm behind the model's last block. Recorded, not compared.
    normalised_by
        Who says how images are normalised for the model. Recorded, not compared.
    notes
        What a reader of the numbers must know of the model and the images, a line each for people.
        Recorded, not compared.
    replace
        Whether an unfinished or finished store from another request may be replaced. The finished
        one is kept until the new one is sealed.

    Raises
    ------
    StoreError
        When another process writes it, or what stands there is from other settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    with _lock(path):
        found = unfinished_request(path)
        # Other taps may mean other blocks: here more than asked for is not good enough.
        if found is not None and (other := provenance.differences(found, request, exact=True)):
            if not replace:
                raise StoreError(
                    f"{partial}: an unfinished store from other settings is in the way ({other}); "
                    "remove it, or pass --replace"
                )
            found = None
        if found is None:
            shutil.rmtree(partial, ignore_errors=True)
            try:
                create(
                    *(partial, layout, geometry, rows, request, model),
                    *(weights or {}, final_norm, normalised_by, notes),
                )
                # Last: without it the creation itself was interrupted.
                (partial / _PROGRESS).mkdir()
            except BaseException as error:
                shutil.rmtree(partial, ignore_errors=True)
                if isinstance(error, OSError):
                    raise StoreError(f"{path}: could not be created: {error}") from error
                raise
        yield StoreWriter(path, layout)


def unfinished_request(path: Path) -> dict[str, Any] | None:
    """Return the request of an interrupted store, or None where there is none to go on with."""
    partial = partial_path(path)
    if not (partial / _PROGRESS).is_dir():
        return None
    try:
        attributes = json.loads((partial / "zarr.json").read_text("utf-8"))["attributes"]
        # What an earlier version has written of a store is laid out otherwise.
        if attributes[ATTRIBUTE]["format_version"] != FORMAT_VERSION:
            return None
        request: dict[str, Any] = attributes[ATTRIBUTE]["request"]
        if attributes[ATTRIBUTE]["fingerprint"] != provenance.fingerprint(request):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return request


def manifest(path: Path, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for a sealed store in the workflow: small, and equal for equal stores."""
    return {
        "store": path.name,
        "format_version": attributes["format_version"],
        "fingerprint": attributes["fingerprint"],
        "forward_images": attributes["forward_images"],
        "arrays": attributes["sealed"]["arrays"],
    }


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: {name} is not an array")
    return array


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the store's lock: two writers in one shard lose data."""
    # The file stays: removing it would let a third writer lock another file of the same name.
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{path}: another process is writing this store; wait until it ends"
            ) from error
        yield
