"""Stores that are written behind a URL: put together in a folder here, shard by shard uploaded.

The folder of work is an unfinished store as any other, in which markers say what is there. A shard
goes as soon as it is uploaded, and its place is taken by a record of its facts, so that the disk
holds little more than a block. The store's own metadata are uploaded last: without them nobody
takes what is there for a store.

Objects cannot be locked. An object beside the store claims it for one folder of work; it is made
on the condition that there is none, and goes when the store is sealed. While it is there, all below
the store's URL is the writer's.
"""

from __future__ import annotations

import json
import shutil
import socket
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitfeat.errors import StoreError
from vitfeat.files import sync, write_files
from vitfeat.store import codec
from vitfeat.store.arrays import ArraySpec
from vitfeat.store.layout import ATTRIBUTE, Layout
from vitfeat.store.paths import Url, claim_path, partial_path
from vitfeat.store.progress import PROGRESS
from vitfeat.store.remote import RemoteFiles
from vitfeat.store.seal import METADATA
from vitfeat.store.shards import Facts
from vitfeat.store.writer import StoreWriter
from vitfeat.text import plural

_UPLOADED = "uploaded"

# Shards that are uploaded at once: each is in memory, up to 64 MiB.
_AT_ONCE = 4


class RemoteWriter(StoreWriter):
    """Fills one store behind a URL; :func:`vitfeat.store.writer.open_writer` opens it."""

    def __init__(self, url: Url, path: Path, layout: Layout, blocks: range) -> None:
        self._url = url
        self._files = RemoteFiles(url)
        # Here and not when the store is claimed: another job of this folder may have sealed it just
        # now, as long as it holds its blocks.
        self._unseal()
        self._records = partial_path(path) / PROGRESS / _UPLOADED
        self._records.mkdir(exist_ok=True)
        self._is_uploaded = {a.name: np.zeros(layout.n_shards(a), bool) for a in layout.arrays}
        # Shards with blocks of other jobs are made, and uploaded, by who seals.
        self._is_own = {
            a.name: np.array(
                [
                    blocks.start <= parts.start and parts.stop <= blocks.stop
                    for parts in (layout.blocks_of(a, s) for s in range(layout.n_shards(a)))
                ],
                bool,
            )
            for a in layout.arrays
        }
        super().__init__(path, layout, blocks)

    def _gather(self, blocks: Iterable[int]) -> None:
        """Put shards together, and upload all that are complete."""
        super()._gather(blocks)
        self._upload_shards()

    def _unseal(self) -> None:
        """Take from a store that is replaced what makes it one."""
        try:
            self._files.delete([METADATA])
        except OSError as error:
            raise self._failed(error) from error

    def _find(self, spec: ArraySpec, shard: int, *, every_chunk: bool) -> Facts | None:
        facts = _recorded(self._record(spec, shard))
        self._is_uploaded[spec.name][shard] = facts is not None
        return facts or super()._find(spec, shard, every_chunk=every_chunk)

    def _upload_shards(self) -> None:
        """Upload the shards that stand here, and remove them."""
        waiting = [
            (spec, int(shard))
            for spec in self._layout.arrays
            for shard in np.flatnonzero(
                self._is_there(spec) & self._is_own[spec.name] & ~self._is_uploaded[spec.name]
            )
        ]
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            self._upload(self._shard(spec, shard) for spec, shard in some)
            # Behind the answer that it is there, and before the shard here goes.
            write_files(
                (
                    (self._record(spec, shard), [b"%d %d\n" % (*self._facts[spec.name][shard],)])
                    for spec, shard in some
                ),
                self._records,
            )
            for spec, shard in some:
                self._is_uploaded[spec.name][shard] = True
                self._shard(spec, shard).unlink()

    def _upload(self, paths: Iterable[Path]) -> None:
        def put(path: Path) -> None:
            self._files.put(path.relative_to(self._partial).as_posix(), path.read_bytes())

        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for _ in pool.map(put, paths):
                    pass
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._url}: could not be uploaded: {error.strerror or error}; what is done is kept: "
            "run the extraction again to go on"
        )

    def _publish(self, attributes: Mapping[str, Any]) -> None:
        """Upload all that is no shard, the store's own metadata last."""
        try:
            self._upload(self._partial / name for name in attributes["sealed"]["files"])
            self._check_shards(attributes["sealed"]["files"])
            content = (self._partial / METADATA).read_bytes()
            try:
                self._files.put(METADATA, content, create=True)
            except FileExistsError:
                # The answer to an attempt of ours may have been lost.
                if RemoteFiles(self._url).read(METADATA) != content:
                    raise StoreError(
                        f"{self._url}: somebody else has sealed a store there meanwhile"
                    ) from None
        except OSError as error:
            raise self._failed(error) from error
        release(self._url, self._path)

    def _check_shards(self, others: Iterable[str]) -> None:
        """See that what was uploaded is there as it was, and nothing but it and some others."""
        listed = self._files.sizes()
        gone = []
        for spec in self._layout.arrays:
            for shard, n_bytes in enumerate(self._facts[spec.name][:, 0].tolist()):
                name = self._shard(spec, shard).relative_to(self._partial).as_posix()
                # A listing may lag behind.
                if listed.pop(name, -1) != n_bytes and self._files.size(name) != n_bytes:
                    self._record(spec, shard).unlink()
                    gone.append(name)
        sync([self._records])
        # Of another store, which this one replaces.
        self._files.delete(listed.keys() - {METADATA, *others})
        if gone:
            raise StoreError(
                f"{self._url}: {plural(len(gone), 'shard')} ({gone[0]}, ...) not there any more, "
                "or changed, after they were uploaded; run the extraction again to make them anew"
            )

    def _record(self, spec: ArraySpec, shard: int) -> Path:
        key = codec.shard_key(shard, 1 + len(spec.shape))
        return self._records / f"{spec.name.replace('/', '.')}.{key}"


def _recorded(record: Path) -> Facts | None:
    """Return the facts of a shard that was uploaded."""
    try:
        text = record.read_text("ascii")
        n_bytes, digest = map(int, text.split())
    except (FileNotFoundError, ValueError):
        return None
    return Facts(n_bytes, digest) if text.endswith("\n") else None


def hold(url: Url, path: Path) -> None:
    """Claim a store behind a URL for a folder of work; once held it stays so over interruptions.

    Raises
    ------
    StoreError
        Somebody else writes it, or what stands there is no store.
    """
    token = _token(path)
    beside, name = RemoteFiles(url.parent), claim_path(url).name
    try:
        try:
            beside.put(name, json.dumps(token).encode(), create=True)
        except FileExistsError:
            _refuse_unless(token, url, beside, name)
        else:
            # What was uploaded before under a claim that is gone may be somebody else's by now.
            shutil.rmtree(partial_path(path) / PROGRESS / _UPLOADED, ignore_errors=True)
            try:
                _refuse_others(url)
            except StoreError:
                beside.delete([name])
                raise
    except OSError as error:
        raise StoreError(f"{url}: cannot be written ({error.strerror or error})") from error


def release(url: Url, path: Path) -> None:
    """Give up the claim to a store that is sealed, and the folder of work."""
    if _token_path(path).exists():
        with suppress(FileNotFoundError):
            RemoteFiles(url.parent).delete([claim_path(url).name])
        shutil.rmtree(partial_path(path), ignore_errors=True)
        _token_path(path).unlink()


def upload_manifest(url: Url, content: bytes) -> None:
    """Write the manifest of a store beside it.

    Raises
    ------
    StoreError
        The host refuses.
    """
    try:
        RemoteFiles(url.parent).put(url.name, content)
    except OSError as error:
        raise StoreError(f"{url}: cannot be written ({error.strerror or error})") from error


def _token(path: Path) -> dict[str, str]:
    """Return what tells the claims of a folder of work from those of others."""
    file = _token_path(path)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        token = {
            "claim": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "folder": str(path.parent.resolve()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_files([(file, [json.dumps(token).encode()])], file.parent)
    content: dict[str, str] = json.loads(file.read_bytes())
    return content


def _refuse_unless(token: dict[str, str], url: Url, beside: RemoteFiles, name: str) -> None:
    try:
        other = json.loads(beside.read(name))
        who = f"{other['host']} in {other['folder']}, since {other['since']}"
        is_ours = other["claim"] == token["claim"]
    except FileNotFoundError:
        raise StoreError(f"{url}: another job was writing this store; try again") from None
    except (ValueError, KeyError, TypeError):
        who, is_ours = "unknown", False
    if not is_ours:
        raise StoreError(
            f"{url}: another job writes this store ({who}); wait until it ends or, if it never "
            f"will, remove {claim_path(url)} and what it has left"
        )


def _refuse_others(url: Url) -> None:
    """Refuse to write where something stands that is no store.

    Raises
    ------
    StoreError
        Saying what.
    """
    files = RemoteFiles(url)
    listed = files.sizes()
    if not listed:
        return
    try:
        json.loads(files.read(METADATA))["attributes"][ATTRIBUTE]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{url}: something that is no store stands there ({next(iter(listed))}, ...); choose "
            "another place, or remove it"
        ) from None


def _token_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.claim")
