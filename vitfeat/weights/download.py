"""One file over HTTP: resumed where a cut left it, and verified before it takes its name.

The hub's own client keeps nothing of a download that was cut: its files come this way too.

What has come stands in a part file. Beside it, in ``<part>.json``, stands what it is part of, so
that two versions of a file are never mixed. Where the file's SHA-256 is known, a part is continued
whatever the server says of versions, since the whole is checked; else only if the server still has
the version (``If-Range``, RFC 9110) and says so.
"""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage, HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from vitfeat.files import move, sha256_of, write_json

logger = logging.getLogger(__name__)

# Seconds that a server may say nothing.
TIMEOUT = 30.0
# A connection that breaks is opened again until so many in a row brought nothing, so far apart.
TRIES = 4
SECONDS_BETWEEN_TRIES = 2.0
_CHUNK = 2**20


class DownloadError(Exception):
    """A file that did not come, with the reason; what has come of it is kept."""


class StatusError(DownloadError):
    """An answer that is an HTTP error, with its number and headers."""

    def __init__(self, status: int, reason: str, headers: Message) -> None:
        super().__init__(f"HTTP {status} {reason}".strip())
        self.status = status
        self.headers = headers


class ContentError(DownloadError):
    """A whole file of another `sha256` than expected; it was removed."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"it has SHA-256 {sha256}")
        self.sha256 = sha256


class _BrokenError(DownloadError):
    """No connection, or one that ended early."""


@dataclass(frozen=True)
class _Part:
    """What a part file is part of."""

    #: As asked for.
    url: str
    sha256: str | None
    #: What the server calls the version: a strong ETag or a time; None where it says neither.
    validator: str | None
    #: Bytes of the whole file, if the server said so.
    total: int | None


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Let one process at a time in, on this machine and, where file systems lock, on several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Members of a group may share the folder.
    lock = FileLock(path, mode=0o664)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning(f"waiting for another process that is fetching {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects as urllib follows them, but to http and https only, and no token to strangers."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.get_method() == "HEAD" and "X-Linked-Etag" in headers:
            # The hub describes its file in the answer that sends one to the storage.
            return None
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise URLError(f"{req.full_url} leads to {newurl}, which is neither http nor https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()
            token = req.unredirected_hdrs.get("Authorization")
            if token and _origin(newurl) == _origin(req.full_url):
                request.add_unredirected_header("Authorization", token)
        return request


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _open(url: str, headers: Mapping[str, str], token: str | None, method: str) -> HTTPResponse:
    agent = {"User-Agent": f"vitfeat/{version('vitfeat')}"}
    request = urllib.request.Request(url, headers={**agent, **headers}, method=method)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        response = urllib.request.build_opener(_Redirects()).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        raise StatusError(error.code, str(error.reason), error.headers) from error
    except (OSError, HTTPException) as error:
        raise _BrokenError(_reason(error)) from error
    assert isinstance(response, HTTPResponse)  # no other scheme comes here
    return response


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return str(cause) or type(cause).__name__


def headers_of(url: str, token: str | None = None) -> Message:
    """Return the headers of the answer to a HEAD request, or of the hub's redirect to its storage.

    An access token goes to the URL's own host only.
    """
    try:
        with _open(url, {}, token, "HEAD") as response:
            return response.headers
    except StatusError as error:
        if error.status // 100 == 3 and "X-Linked-Etag" in error.headers:
            return error.headers
        raise


def download(
    url: str,
    target: Path,
    part: Path,
    *,
    name: str,
    progress: bool,
    token: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
) -> str:
    """Download a file, going on where an earlier call was cut, and return its SHA-256.

    The caller holds the file's lock. The part file grows on the same file system, and is kept when
    the download is cut and when the disk is full; `target` is made or replaced when all of it is
    there and has what is known of it, SHA-256 and size. An access token goes to the URL's own host
    only. Messages and the bar, on a terminal, call the file by `name`.
    """
    run = _Download(url, part, name, progress, token, sha256, size)
    run.transfer()
    came = sha256_of(part)
    if run.continued and sha256 not in (None, came):
        # The start was of another version, or a machine failed while it was written.
        logger.warning(f"{name}: its parts do not fit together; downloading it anew")
        run.discard()
        run.transfer()
        came = sha256_of(part)
    if sha256 not in (None, came):
        run.discard()
        raise ContentError(came)
    move(part, target)
    run.note.unlink(missing_ok=True)
    return came


@dataclass
class _Download:
    """One download."""

    _url: str
    _part: Path
    _name: str
    _progress: bool
    _token: str | None
    _sha256: str | None
    _size: int | None
    #: Whether the file was put together from several answers.
    continued: bool = False
    _answered: bool = False

    @property
    def note(self) -> Path:
        """The file that says what the part file is part of."""
        return self._part.with_name(f"{self._part.name}.json")

    def discard(self) -> None:
        """Remove what has come."""
        # In this order: a note must never stand beside bytes of another version.
        self._part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def transfer(self) -> None:
        """Fill the part file, opening the connection again when it breaks."""
        fruitless = 0
        while True:
            before = self._length()
            try:
                self._answer()
                return
            except _BrokenError as error:
                fruitless = 0 if self._length() > before else fruitless + 1
                # Without a network it is said at once; one that fails on the way may come back.
                if not self._answered or fruitless == TRIES:
                    raise
                logger.warning(f"{self._name}: {error}; trying to go on")
            time.sleep(SECONDS_BETWEEN_TRIES)

    def _length(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _known(self) -> _Part | None:
        """Return what the part file is part of, or None when it cannot be continued."""
        try:
            known = _Part(**json.loads(self.note.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if known.sha256 != self._sha256:
            return None
        same = self._sha256 or (known.url == self._url and known.validator)
        return known if same else None

    def _answer(self) -> None:
        """Ask for what is missing and append what comes."""
        known = self._known()
        start = self._length() if known else 0
        if known and known.total is not None and start >= known.total:
            if start == known.total:
                self.continued = True
                return
            start = 0
        headers = {}
        if known and start:
            headers["Range"] = f"bytes={start}-"
            if self._sha256 is None and known.validator:
                headers["If-Range"] = known.validator
        try:
            response = _open(self._url, headers, self._token, "GET")
        except StatusError as error:
            if error.status != 416:
                raise
            # The server's file is shorter than the part.
            self.discard()
            return self._answer()
        self._answered = True
        with response:
            if start and response.status == 206 and not _continues(response, known, start):
                self.discard()
                return self._answer()
            total = self._total(response)
            if not start or response.status != 206:
                start = 0
                self.discard()
                part = _Part(self._url, self._sha256, _validator(response.headers), total)
                write_json(self.note, asdict(part))
            self.continued = start > 0
            done = start + self._append(response, start, total)
        if total is not None and done != total:
            raise _BrokenError(f"the connection ended after {done:,} of {total:,} bytes")

    def _total(self, response: HTTPResponse) -> int | None:
        """Return the bytes of the whole file; raise when the answer cannot be it."""
        if response.headers.get_content_type() == "text/html":
            raise DownloadError("the server answers with a web page and not with a file")
        said = _total(response)
        total = self._size if said is None else said
        if self._size is not None and total != self._size:
            raise DownloadError(f"the server has {total:,} bytes of it, not {self._size:,}")
        if total is None and self._sha256 is None and not response.chunked:
            raise DownloadError(
                "the server does not say how long the file is, so a cut would go unnoticed: give "
                "its sha256"
            )
        return total

    def _append(self, response: HTTPResponse, start: int, total: int | None) -> int:
        # 30 ms, and only a download needs it.
        from tqdm import tqdm

        bar = tqdm(
            total=total,
            initial=start,
            desc=self._name,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            # None: not where standard error is no terminal.
            disable=None if self._progress else True,
        )
        received = 0
        # Written at its place, not at the end: where a file system's locks do nothing, two
        # processes write the same bytes to the same places.
        with bar, self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, HTTPException) as error:
                    raise _BrokenError(f"the connection broke ({_reason(error)})") from error
                if not chunk:
                    return received
                # An error here is the disk's, and passes.
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))


def _total(response: HTTPResponse) -> int | None:
    """Return the bytes of the whole file, of which an answer may bring the rest only."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if re.fullmatch(r"\d+", total) else None


def _continues(response: HTTPResponse, known: _Part | None, start: int) -> bool:
    """Whether a partial answer goes on where a part of the same version ends."""
    if known is None or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        return False
    if known.total is not None and _total(response) not in (None, known.total):
        return False
    # Storages behind the hub may call the same bytes differently; their SHA-256 tells.
    return known.sha256 is not None or _validator(response.headers) == known.validator


def _validator(headers: Message) -> str | None:
    """Return what a range request may name a version by: no weak ETag (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return headers.get("Last-Modified")
