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
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import StoreError
from vitfeat.files import sync, write_files
from vitfeat.store.arrays import ArraySpec
from vitfeat.store.files import RemoteFiles
from vitfeat.store.layout import ATTRIBUTE, Layout
from vitfeat.store.paths import Url, claim_path, partial_path
from vitfeat.store.progress import PROGRESS
from vitfeat.store.seal import METADATA
from vitfeat.store.shards import Facts
from vitfeat.text import plural

_UPLOADED = "uploaded"

# Shards that are uploaded at once: each is in memory, up to 64 MiB.
_AT_ONCE = 4


class Uploads:
    """What a writer has uploaded of the store that it fills, and what it uploads."""

    def __init__(self, url: Url, path: Path, layout: Layout, blocks: range) -> None:
        self._url = url
        self._path = path
        self._partial = partial_path(path)
        self._layout = layout
        self._blocks = blocks
        self._files = RemoteFiles(url)
        # Take from a store that is replaced what makes it one. Here and not when the store is
        # claimed: another job of this folder may have sealed it just now, as long as it holds its
        # blocks.
        try:
            self._files.delete([METADATA])
        except OSError as error:
            raise self._failed(error) from error
        self._records = self._partial / PROGRESS / _UPLOADED
        self._records.mkdir(exist_ok=True)
        self._uploaded: set[tuple[str, int]] = set()

    def find(self, spec: ArraySpec, shard: int) -> Facts | None:
        """Return the facts of a shard that was uploaded."""
        self._uploaded.discard((spec.name, shard))
        try:
            text = self._record(spec, shard).read_text("ascii")
            n_bytes, digest = map(int, text.split())
        except (FileNotFoundError, ValueError):
            return None
        if not text.endswith("\n"):
            return None
        self._uploaded.add((spec.name, shard))
        return Facts(n_bytes, digest)

    def send(self, facts: Mapping[str, NDArray[np.int64]]) -> None:
        """Upload the shards that stand here, by their facts, and remove them."""
        waiting = [
            (spec, shard)
            for spec in self._layout.arrays
            for shard in np.flatnonzero(facts[spec.name][:, 0] >= 0).tolist()
            if (spec.name, shard) not in self._uploaded and self._is_own(spec, shard)
        ]
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            self._upload(self._layout.file_of(spec, shard) for spec, shard in some)
            # Behind the answer that it is there, and before the shard here goes.
            write_files(
                (
                    (self._record(spec, shard), [b"%d %d\n" % (*facts[spec.name][shard],)])
                    for spec, shard in some
                ),
                self._records,
            )
            for spec, shard in some:
                self._uploaded.add((spec.name, shard))
                (self._partial / self._layout.file_of(spec, shard)).unlink()

    def _is_own(self, spec: ArraySpec, shard: int) -> bool:
        """Whether no block of another job is in a shard: who seals makes and uploads such ones."""
        blocks = self._layout.blocks_of(spec, shard)
        return self._blocks.start <= blocks.start and blocks.stop <= self._blocks.stop

    def _upload(self, names: Iterable[str]) -> None:
        def put(name: str) -> None:
            self._files.put(name, (self._partial / name).read_bytes())

        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for _ in pool.map(put, names):
                    pass
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._url}: could not be uploaded: {error.strerror or error}; what is done is kept: "
            "run the extraction again to go on"
        )

    def publish(self, others: Collection[str], facts: Mapping[str, NDArray[np.int64]]) -> None:
        """Upload all that is no shard, the store's own metadata last."""
        try:
            self._upload(others)
            self._check_shards(others, facts)
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

    def _check_shards(self, others: Iterable[str], facts: Mapping[str, NDArray[np.int64]]) -> None:
        """See that what was uploaded is there as it was, and nothing but it and some others."""
        listed = self._files.sizes()
        gone = []
        for spec in self._layout.arrays:
            for shard, n_bytes in enumerate(facts[spec.name][:, 0].tolist()):
                name = self._layout.file_of(spec, shard)
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
        return self._records / self._layout.file_of(spec, shard).replace("/", ".")


def hold(url: Url, path: Path) -> None:
    """Claim a store behind a URL for a folder of work; once held it stays so over interruptions."""
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
    """Write the manifest of a store beside it."""
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
