"""Writing a store: created beside its place, filled block by block, sealed, moved into place.

What stands under a store's own path is always whole. While it is written it stands under
``{path}.partial``; a block counts when all that it has is on disk and its marker is written behind
it, so that a killed job goes on at the first missing block.

A shard has one writer and is written whole. One that reaches over blocks is put together as soon as
all of them are there, from what each has of it; what several jobs have of one, by the sealing.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import ReadError, StoreError, what_to_do
from vitfeat.files import json_bytes, sync, sync_tree, write_files, write_json
from vitfeat.final_norm import FinalNorm
from vitfeat.store import provenance
from vitfeat.store.arrays import ArraySpec, Geometry
from vitfeat.store.create import Rows, create
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION, Layout
from vitfeat.store.opening import is_store, said_of
from vitfeat.store.paths import Place, Url, manifest_path, partial_path, work_path
from vitfeat.store.progress import (
    PROGRESS,
    Marker,
    Pieces,
    Progress,
    changed_files,
    claim,
    creating,
    record_files,
    refuse_if_claimed,
)
from vitfeat.store.repair import adopt, keep_what_is_said
from vitfeat.store.seal import METADATA, has_own_seal, write_seal
from vitfeat.store.shards import Facts, encode_shard, place_of_shard, whole_shard
from vitfeat.store.uploading import Uploads, hold, upload_manifest
from vitfeat.text import size


class StoreWriter:
    """Fills one store, or a run of its blocks, in any order.

    Use :func:`open_writer`, which claims the blocks and resumes what is there. Those of them that
    were there and do not match their checksums are `damaged`.
    """

    def __init__(self, place: Place, layout: Layout, blocks: range, *, replace: bool) -> None:
        self.blocks = blocks
        self.is_sealed = False
        self._place, self._replace = place, replace
        self._path = path = work_path(place)
        self._layout = layout
        self._partial = partial_path(path)
        self._uploads = Uploads(place, path, layout, blocks) if isinstance(place, Url) else None
        self._progress = Progress(self._partial, layout)
        self._notes: list[str] = []
        self._fingerprint = str(self._own_attributes()["fingerprint"])
        # Of a shard that is not there, -1.
        self._facts = {a.name: np.full((layout.n_shards(a), 2), -1) for a in layout.arrays}
        self._is_done = np.zeros(layout.n_blocks, bool)
        self._look(every_chunk=False)
        if 0 < len(self.missing_blocks()) < len(blocks):
            # An interruption has made work anyway: what is left of it is read whole, once.
            self._look(every_chunk=True)
        self.damaged = [b for b in self.missing_blocks() if self._progress.is_begun(b)]

    def missing_blocks(self) -> list[int]:
        """Return those of the writer's blocks that are not yet wholly on disk."""
        return [block for block in self.blocks if not self._is_done[block]]

    def write_block(
        self, block: int, arrays: Mapping[str, NDArray[Any]], *, forward_images: int
    ) -> None:
        """Write one block of every array, and the shards that are complete with it.

        `arrays` are by name (rows of the block that the array holds, ...), of the store's element
        types; `forward_images` is how many images were pushed through the model for this block.
        """
        whole = [a for a in self._layout.arrays if not self._layout.is_gathered(a)]
        try:
            pieces = self._progress.pieces(block, arrays)
            self._write({(spec, block): arrays[spec.name] for spec in whole}, pieces)
            # Behind what it marks.
            marker = Marker(forward_images, tuple(self._notes), *pieces.checksum)
            self._progress.write_marker(block, marker)
            self._is_done[block] = True
            self._gather([block])
        except OSError as error:
            raise self._write_error(error, f"block {block}") from error

    def note(self, line: str) -> None:
        """Keep a line about how the store came about, beside those that it was created with."""
        if line not in self._notes:
            self._notes.append(line)

    def seal(self) -> dict[str, Any]:
        """Check that all is there, record it, move it to its place, and return its manifest."""
        if missing := np.flatnonzero(~self._is_done).tolist():
            raise StoreError(
                f"{self._path}: {len(missing)} of {self._layout.n_blocks} blocks are not written; "
                "run the extraction again to go on"
            )
        try:
            self._gather(self.blocks)
            attributes = self._attributes()
            write_seal(self._partial, self._layout, attributes, self._facts)
        except OSError as error:
            raise self._write_error(error, "the seal") from error
        # Whoever looks now whether there is something to do sees it unfinished or finished.
        with creating(self._path):
            self._publish(attributes)
        self.is_sealed = True
        return manifest(self._place, attributes)

    def _publish(self, attributes: Mapping[str, Any]) -> None:
        if self._uploads is not None:
            self._uploads.publish(attributes["sealed"]["files"], self._facts)
            return
        if self._path.exists():
            # Somebody may have put it there since the extraction began.
            said = said_of(self._path) or {}
            if not (
                (self._replace and is_store(self._path))
                or said.get("request") == attributes["request"]
            ):
                raise StoreError(
                    f"{self._path}: something else has come to stand there; move it, then run the "
                    f"extraction again: all of it is in {self._partial.name}"
                )
            _set_aside(self._path, self._path)
        try:
            self._partial.rename(self._path)
            sync([self._path.parent])
        except OSError as error:
            raise self._write_error(error, "its name") from error

    def _own_attributes(self) -> dict[str, Any]:
        root = json.loads((self._partial / METADATA).read_text("utf-8"))
        attributes: dict[str, Any] = root["attributes"][ATTRIBUTE]
        return attributes

    def _attributes(self) -> dict[str, Any]:
        """Return what the store says of itself, with what its blocks have to say."""
        attributes = self._own_attributes()
        markers = [self._progress.read_marker(b) for b in range(self._layout.n_blocks)]
        there = [marker for marker in markers if marker is not None]
        attributes["forward_images"] = sum(marker.forward_images for marker in there)
        said = (line for marker in there for line in marker.notes)
        attributes["notes"] = [*dict.fromkeys((*attributes["notes"], *said))]
        return attributes

    def _look(self, *, every_chunk: bool) -> None:
        """Find out which of the writer's blocks are there, and which shards they have some of."""
        layout = self._layout
        for spec in layout.arrays:
            for shard in sorted({s for b in self.blocks for s in layout.shards_of(spec, b)}):
                facts = self._find(spec, shard, every_chunk=every_chunk)
                self._facts[spec.name][shard] = -1 if facts is None else facts
        for block in self.blocks:
            lacking = [a for a in layout.arrays if not self._has_all(a, block)]
            marker = self._progress.read_marker(block)
            self._is_done[block] = marker is not None and (
                not lacking
                or (
                    all(map(layout.is_gathered, lacking))
                    and self._progress.has_pieces(block, marker)
                )
            )

    def _find(self, spec: ArraySpec, shard: int, *, every_chunk: bool) -> Facts | None:
        """Return the facts of a shard that is there and right."""
        if self._uploads is not None and (facts := self._uploads.find(spec, shard)) is not None:
            return facts
        layout = self._layout
        counts = layout.chunk_counts(spec)
        used = (-(-len(layout.entries_of(spec, shard)) // layout.chunk_rows(spec)),)
        return whole_shard(
            *(self._shard(spec, shard), counts, used + counts[1:], self._place_of(spec, shard)),
            every_chunk=every_chunk,
        )

    def _is_there(self, spec: ArraySpec) -> NDArray[np.bool_]:
        """Return whether each shard of an array is there."""
        return self._facts[spec.name][:, 0] >= 0

    def _has_all(self, spec: ArraySpec, block: int) -> bool:
        """Return whether all shards that a block has some of are there."""
        shards = self._layout.shards_of(spec, block)
        return bool(self._is_there(spec)[shards.start : shards.stop].all())

    def _gather(self, blocks: Iterable[int]) -> None:
        """Put those shards together that blocks have some of and whose blocks are all there."""
        layout, touched = self._layout, set[int]()
        for spec in filter(layout.is_gathered, layout.arrays):
            for shard in dict.fromkeys(s for b in blocks for s in layout.shards_of(spec, b)):
                parts = layout.blocks_of(spec, shard)
                if self._is_there(spec)[shard] or not all(self._is_done[[*parts]]):
                    continue
                try:
                    self._write({(spec, shard): self._pieces_of(spec, shard, parts)})
                except OSError as error:
                    raise self._write_error(error, f"shard {shard} of {spec.name}") from error
                touched.update(parts)
        gathered = [*filter(layout.is_gathered, layout.arrays)]
        for block in touched:
            if all(self._has_all(spec, block) for spec in gathered):
                self._progress.remove_pieces(block)
        if self._uploads is not None:
            self._uploads.send(self._facts)

    def _pieces_of(self, spec: ArraySpec, shard: int, blocks: range) -> NDArray[Any]:
        """Return a shard's entries, from what its blocks have of it."""
        entries, pieces = self._layout.entries_of(spec, shard), []
        for block in blocks:
            held = self._layout.entries(spec, self._layout.rows(block))
            start, stop = max(held.start, entries.start), min(held.stop, entries.stop)
            if start < stop:
                piece = self._progress.read_pieces(block)[spec.name]
                pieces.append(piece[start - held.start : stop - held.start])
        return np.concatenate(pieces)

    def _write(
        self, shards: Mapping[tuple[ArraySpec, int], NDArray[Any]], pieces: Pieces | None = None
    ) -> None:
        facts: dict[tuple[str, int], Facts] = {}

        def encoded() -> Iterator[tuple[Path, Iterable[bytes]]]:
            """Yield files and their content, one at a time in memory."""
            if pieces is not None and pieces.parts:
                yield pieces
            for (spec, shard), values in shards.items():
                shapes = self._layout.chunk_shape(spec), self._layout.shard_shape(spec)
                place = self._place_of(spec, shard)
                parts, facts[spec.name, shard] = encode_shard(values, *shapes, place)
                yield self._shard(spec, shard), parts

        write_files(encoded(), self._progress.folder)
        for (name, shard), known in facts.items():
            self._facts[name][shard] = known

    def _place_of(self, spec: ArraySpec, shard: int) -> str:
        return place_of_shard(self._fingerprint, spec.name, shard)

    def _shard(self, spec: ArraySpec, shard: int) -> Path:
        return self._partial / self._layout.file_of(spec, shard)

    def _write_error(self, error: OSError, place: str) -> StoreError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        free = size(shutil.disk_usage(self._partial).free)
        what = f"no space left on the disk ({free} free)" if full else str(error)
        return StoreError(
            f"{self._path}: {place} could not be written: {what}; the blocks before it are kept: "
            "make room and run the extraction again to go on"
        )


@contextmanager
def open_writer(
    place: Place,
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
    part: tuple[int, int] | None = None,
    is_finished: Callable[[], bool] = lambda: False,
) -> Iterator[StoreWriter | None]:
    """Claim a store for writing; create it, or resume an interrupted one.

    The writer is None where the store turned out to be finished.

    Parameters
    ----------
    request
        What decides its numbers (see :mod:`vitfeat.store.provenance`).
    model, weights, final_norm, normalised_by, notes
        Recorded, not compared: the model's id; its weights' file, SHA-256, repository, revision;
        the norm behind its last block; who says how images are normalised for it; what a reader of
        the numbers must know of it, a line each for people.
    replace
        Whether an unfinished or finished store from another request may be replaced. The finished
        one is kept until the new one is sealed, and what is whole of it taken over, if it is of
        the same request: it is damaged, or lacks what was dropped.
    part
        Only the blocks of one of several jobs: its number, from 1, and how many they are. Such a
        writer does not seal.
    is_finished
        Whether nothing is to be written after all; asked while no other job can begin or seal the
        store.
    """
    path = work_path(place)
    partial = partial_path(path)
    blocks = layout.part(*part) if part else range(layout.n_blocks)
    holding: IO[str] | None = None
    with creating(path):
        if isinstance(place, Url):
            hold(place, path)
        # Behind the lock and the claim: what was seen before may be of another moment.
        if not is_finished():
            begun = unfinished_request(path)
            # Other taps may mean other blocks: here more than asked for is not good enough.
            if begun is not None and (other := provenance.differences(begun, request, exact=True)):
                if not replace:
                    raise StoreError(
                        f"{partial}: an unfinished store from other settings is in the way "
                        f"({other}); remove it, or pass --replace (replace=True in Python)"
                    )
                begun = None
            if begun is None:
                refuse_if_claimed(path, partial / PROGRESS)
                with _replacing(path) as new:
                    create(
                        *(new, layout, geometry, rows, request, model),
                        *(weights or {}, final_norm, normalised_by, notes),
                    )
                    keep_what_is_said(path, new)
                    record_files(new)
                    adopt(path, new, layout)
            holding = claim(path, partial / PROGRESS, blocks)
    if holding is None:
        yield None
        return
    with holding:
        try:
            writer = StoreWriter(place, layout, blocks, replace=replace)
        except OSError as error:
            raise _unreadable(partial, error) from error
        yield writer
    # Behind the move, so that a job killed in between finds its blocks again, and without a claim.
    if writer.is_sealed:
        remove_leftovers(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Folder of a store to create; once it is on the disk it replaces an unfinished one."""
    partial, new = partial_path(path), _creating(path)
    if partial.exists() and not ((partial / PROGRESS).is_dir() or said_of(partial)):
        raise StoreError(
            f"{partial}: is in the way, and no unfinished store of vitfeat's; move it elsewhere"
        )
    shutil.rmtree(new, ignore_errors=True)
    try:
        yield new
        sync_tree(new)
        if partial.exists():
            # At once: of one that is half removed nobody could say whose it is.
            _set_aside(partial, path)
        new.rename(partial)
        sync([partial.parent])
        shutil.rmtree(_replaced(path), ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{path}: could not be created: {error}; {what_to_do(error)}"
            ) from error
        raise


def unfinished_request(path: Path) -> dict[str, Any] | None:
    """Return the request of an interrupted store, or None where there is none to go on with.

    One that cannot be read now is an error: it would be begun anew.
    """
    partial = partial_path(path)
    if not (partial / PROGRESS).is_dir():
        return None
    try:
        root = json.loads((partial / METADATA).read_text("utf-8"))
        # A sealing that was killed has changed its own metadata, and nothing else.
        changed = changed_files(partial)
        if changed and not (changed == [METADATA] and has_own_seal(root)):
            return None
        attributes = root["attributes"]
        # What an earlier version has written of a store is laid out otherwise.
        if attributes[ATTRIBUTE]["format_version"] != FORMAT_VERSION:
            return None
        request: dict[str, Any] = attributes[ATTRIBUTE]["request"]
        if attributes[ATTRIBUTE]["fingerprint"] != provenance.digest(request):
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise _unreadable(partial, error) from error
    return request


def _unreadable(partial: Path, error: OSError) -> ReadError:
    where = f"{error.filename}: " if error.filename else ""
    return ReadError(
        f"{partial}: the unfinished store cannot be read ({where}{error.strerror or error}); "
        f"{what_to_do(error)}"
    )


def manifest(path: Place, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for a sealed store in the workflow: small, and equal for equal stores."""
    return {
        "store": path.name,
        "format_version": attributes["format_version"],
        "fingerprint": attributes["fingerprint"],
        "forward_images": attributes["forward_images"],
        "arrays": attributes["sealed"]["arrays"],
    }


def write_manifest(place: Place, sealed: Mapping[str, Any]) -> None:
    """Write the manifest of a store beside it."""
    path = manifest_path(place)
    if isinstance(path, Path):
        write_json(path, sealed)
    else:
        upload_manifest(path, json_bytes(sealed))


def is_manifest(place: Place, sealed: Mapping[str, Any]) -> bool:
    """Return whether this manifest stands beside a store already."""
    path = manifest_path(place)
    try:
        return isinstance(path, Path) and path.read_bytes() == json_bytes(sealed)
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_leftovers(path: Path) -> None:
    """Remove what a sealed store no longer needs, the one that it has replaced, and begun ones.

    Nobody may hold the store's lock.
    """
    left = [p for p in (path / PROGRESS, _replaced(path), _creating(path)) if p.exists()]
    # Where nothing can be written nothing can be removed.
    with suppress(StoreError):
        if left:
            with creating(path):
                for folder in left:
                    shutil.rmtree(folder, ignore_errors=True)


def _set_aside(folder: Path, path: Path) -> None:
    """Take a folder out of the way of a store, to be removed when the store has its name."""
    shutil.rmtree(_replaced(path), ignore_errors=True)
    folder.rename(_replaced(path))


# Names that no file of the user's has.
def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _creating(path: Path) -> Path:
    return path.with_name(f".{path.name}.creating")
