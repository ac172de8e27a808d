"""The files of a store, on a disk or behind a URL: the one way in which stores are read.

Behind a URL are objects of S3 and whatever speaks like it, and files of plain web servers. Each
call is one request, made again by obstore after a pause where a connection breaks or a server is
busy. What is wrong is an ``OSError`` of one line, as it is of files on a disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vitfeat.errors import StoreError
from vitfeat.store.paths import Place, Url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_T = TypeVar("_T")

# Requests at once: each waits for the network much longer than for anything here.
_AT_ONCE = 16

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a bucket that "
    "anybody may read"
)

#: How often, and for how long, a request is made again. Pauses double from 0.1 to 15 seconds. A
#: request is signed once, and S3 takes signatures of 15 minutes.
RETRY: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=10)}

#: How long a request may take: a shard of 64 MiB, four of them at once, on a line of 1 Mbit/s.
LONGEST = timedelta(minutes=40)

#: How long a host may send nothing before it is given up. It sends nothing during an upload, so
#: that this is for uploads that take less on such a line.
SILENCE = timedelta(seconds=30)
SMALL_UPLOAD = 2**19

# What is said where there are none, or half: machines of clouds are asked last for theirs.
_NO_CREDENTIALS = ("/latest/api/token", "Missing AccessKeyId", "Missing SecretAccessKey")

# The process whose threads obstore's requests are made by.
_process: int | None = None


class SizeError(Exception):
    """A file that has another size than it must have; says which, in words."""


class LocalFiles:
    """Files of a folder; one that is not there is a ``FileNotFoundError``."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.place = folder

    def read(self, name: str) -> bytes:
        """Return a file whole."""
        return (self.place / name).read_bytes()

    def read_range(self, name: str, offset: int, length: int, size: int | None) -> bytes:
        """Return a part of a file of a known size; an offset below 0 counts from the end.

        Its size was compared when the store was opened.
        """
        file = os.open(self.place / name, os.O_RDONLY)
        try:
            if offset < 0:
                offset = max(0, os.fstat(file).st_size + offset)
            return os.pread(file, length, offset)
        finally:
            os.close(file)

    def fetch(self, names: Iterable[str]) -> None:
        """Get files ready that will be read whole: they are there."""


class RemoteFiles:
    """Files below a URL; what is read whole is kept."""

    is_remote = True

    def __init__(self, url: Url) -> None:
        self.place = url
        self._kept: dict[str, bytes] = {}

    @cached_property
    def _objects(self) -> ObjectStore:
        return self._connect({"read_timeout": SILENCE})

    @cached_property
    def _large_uploads(self) -> ObjectStore:
        return self._connect({})

    def _connect(self, limits: ClientConfig) -> ObjectStore:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(
                f'{self.place}: reading it needs obstore: pip install "vitfeat[remote]"'
            ) from error
        with _in_words("it"):
            # Whoever gives an endpoint without TLS means it.
            options: ClientConfig = {"allow_http": True, "timeout": LONGEST, **limits}
            return from_url(str(self.place), client_options=options, retry_config=RETRY)

    def read(self, name: str) -> bytes:
        """Return a file whole."""
        if name not in self._kept:
            self._kept[name] = self._ask(
                name, lambda obstore, objects: obstore.get(objects, name).bytes().to_bytes()
            )
        return self._kept[name]

    def read_range(self, name: str, offset: int, length: int, size: int | None) -> bytes:
        """Return a part of a file, or raise a :class:`SizeError` where it has another size."""
        if size is None:
            raise SizeError(f"{name}: its size is not known")
        start = offset if offset >= 0 else size + offset
        options = {"range": (start, start + length)}

        def get(obstore: Any, objects: ObjectStore) -> bytes:
            answer = obstore.get(objects, name, options=options)
            if answer.meta["size"] != size:
                raise SizeError(
                    f"{name} has {answer.meta['size']:,} bytes, {size:,} when it was sealed"
                )
            content: bytes = answer.bytes().to_bytes()
            return content

        return self._ask(name, get)

    def fetch(self, names: Iterable[str]) -> None:
        """Read files whole, several at once."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self.read, names):
                pass

    def put(self, name: str, content: bytes, *, create: bool = False) -> None:
        """Write a file whole: it is there, complete, when this returns.

        With `create` a file that is there already is a ``FileExistsError``.
        """
        mode = "create" if create else "overwrite"
        is_large = len(content) > SMALL_UPLOAD

        def send(obstore: Any, objects: ObjectStore) -> None:
            # In one request, which leaves nothing behind where it breaks off.
            to = self._large_uploads if is_large else objects
            obstore.put(to, name, content, mode=mode, use_multipart=False)

        self._ask(name, send)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files."""
        if names := [*names]:
            self._ask(names[0], lambda obstore, objects: obstore.delete(objects, names))

    def sizes(self) -> dict[str, int]:
        """Return the size of each file, by its name; what was written just now may be missing."""

        def listed(obstore: Any, objects: ObjectStore) -> dict[str, int]:
            pages = obstore.list(objects)
            return {file["path"]: file["size"] for page in pages for file in page}

        return self._ask("the list of its files", listed)

    def size(self, name: str) -> int:
        """Return the size of a file, -1 of none."""
        try:
            head = self._ask(name, lambda obstore, objects: obstore.head(objects, name))
        except FileNotFoundError:
            return -1
        return int(head["size"])

    def _ask(self, name: str, request: Callable[[Any, ObjectStore], _T]) -> _T:
        objects = self._objects
        import obstore

        global _process
        _process = _process or os.getpid()
        if _process != os.getpid():
            # The request would wait for threads that the fork has left behind.
            raise StoreError(
                f"{self.place}: cannot be read in a process that was forked from one that has read "
                "such a store; start it anew, as "
                "DataLoader(..., multiprocessing_context='spawn') does"
            )
        with _in_words(name):
            return request(obstore, objects)


Files = LocalFiles | RemoteFiles
"""The files below one place."""


def files_at(place: Place) -> Files:
    """Return the files of a place."""
    return LocalFiles(place) if isinstance(place, Path) else RemoteFiles(place)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Make errors of one line of obstore's, which have pages."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise OSError("there is no such bucket") from error
        raise FileNotFoundError(f"{name} is missing") from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(f"{name} is there") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(f"access denied; {_CREDENTIALS}") from error
    except exceptions.NotSupportedError as error:
        raise OSError("the server gives files whole only, and no parts of them") from error
    except exceptions.BaseError as error:
        text = str(error)
        if "416 Range Not Satisfiable" in text:
            raise SizeError(f"{name} is shorter than when it was sealed") from error
        if any(said in text for said in _NO_CREDENTIALS):
            raise PermissionError(f"no credentials; {_CREDENTIALS}") from error
        # What happened, without the path to it through obstore.
        line = next(iter(text.splitlines()), "")
        raise OSError(line.removeprefix("Generic ").strip()) from error
