"""A server of files and a model hub, as far as a client of weights can tell, on this machine."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Served:
    """A file at a URL, and how its server behaves."""

    content: bytes
    etag: str | None = None
    modified: str | None = None
    ranges: bool = True
    # Whether a range of another version than the client's is refused, as it must be.
    if_range: bool = True
    # Whether the server answers from the start whatever it is asked for.
    from_start: bool = False
    # "length", "chunked" or "none": how the client learns where the file ends.
    framing: str = "length"
    kind: str = "application/octet-stream"
    # Status and Location instead of the content.
    redirect: tuple[int, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass
class Repository:
    """A repository: files by commit, commits by branch or tag."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    # Whether files are large ones, which the hub keeps in another place under their SHA-256.
    large: bool = True
    # (status, code, message) of every answer, for repositories that are not for everybody.
    refuses: tuple[int, str, str] | None = None
    # What the hub says of files where it is wrong.
    told_sha256: str | None = None
    told_size: int | None = None
    # A file that it fails to give, for a moment.
    fails: str | None = None
    # A token that opens it.
    token: str | None = None


@dataclass
class Asked:
    """A request that came."""

    method: str
    host: str
    path: str
    headers: dict[str, str]


@dataclass
class Server:
    """What is served, and what was asked.

    Attributes
    ----------
    files, repositories
        By path, and by name.
    cut
        Bytes of a body after which connections break, one number a body; none if empty.
    stall
        Seconds of silence before a body.
    asked
        Requests in the order in which they came.
    """

    port: int = 0
    files: dict[str, Served] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    stall: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_url(self) -> str:
        """The same server under another host's name: strangers to each other, for a client."""
        return f"http://localhost:{self.port}"

    def publish(self, name: str, **fields: object) -> str:
        """Put a file at a URL and return it."""
        self.files[f"/{name}"] = Served(**fields)  # type: ignore[arg-type]
        return f"{self.url}/{name}"

    def bodies(self) -> list[Asked]:
        """The requests for content of files that were not sent elsewhere."""
        return [a for a in self.asked if a.method == "GET" and "/resolve/" not in a.path]


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for the time of a ``with`` block."""
    server = Server()

    class Handler(_Handler):
        state = server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.close_connection = True
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append(
            Asked(
                self.command,
                self.headers["Host"].partition(":")[0],
                path,
                {k.lower(): v for k, v in self.headers.items()},
            )
        )
        # Revisions may hold slashes, which a client must escape.
        raw = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", urlsplit(self.path).path)
        if raw:
            repository, revision, file = map(unquote, raw.groups())
            self._resolve(repository, revision, file)
        elif path in self.state.files:
            self._send(self.state.files[path])
        else:
            self._answer(404, {})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers, "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()

    def _resolve(self, name: str, revision: str, file: str) -> None:
        def refuse(status: int, code: str, message: str) -> None:
            headers = {"X-Error-Code": code} if code else {}
            self._answer(status, {**headers, "X-Error-Message": message})

        repository = self.state.repositories.get(name)
        if repository is None:
            return refuse(401, "", "Invalid username or password.")
        authorised = self.headers["Authorization"] == f"Bearer {repository.token}"
        if repository.refuses and not (repository.token and authorised):
            return refuse(*repository.refuses)
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if file not in repository.commits[commit]:
            return refuse(404, "EntryNotFound", "Entry not found")
        if file == repository.fails:
            return refuse(503, "", "Come back later")
        content = repository.commits[commit][file]
        if not repository.large:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(Served(content, etag=f'"{git}"'), {"X-Repo-Commit": commit})
        storage = f"/storage/{sha256(content)}"
        self.state.files[storage] = Served(content, etag='"the-storage-calls-it-so"')
        told = repository.told_sha256 or sha256(content)
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{told}"',
            "X-Linked-Size": str(repository.told_size or len(content)),
            "Location": f"{self.state.other_url}{storage}",
            # A redirect has a body of its own.
            "Content-Length": "3" if self.command == "GET" else "0",
        }
        self._answer(302, headers)
        if self.command == "GET":
            self.wfile.write(b"302")
        return None

    def _send(self, served: Served, more: dict[str, str] | None = None) -> None:
        if served.redirect:
            status, location = served.redirect
            return self._answer(status, {"Location": location, **served.headers})
        if served.status != 200:
            return self._answer(served.status, {})
        content, total, status = served.content, len(served.content), 200
        headers = {"Content-Type": served.kind, **(more or {})}
        headers |= {"ETag": served.etag} if served.etag else {}
        headers |= {"Last-Modified": served.modified} if served.modified else {}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        version = self.headers["If-Range"]
        same = version is None or version in (served.etag, served.modified)
        if start and served.ranges and (same or not served.if_range):
            first = 0 if served.from_start else int(start.group(1))
            if first >= total:
                return self._answer(416, {"Content-Range": f"bytes */{total}"})
            content, status = content[first:], 206
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        if served.framing == "length":
            headers["Content-Length"] = str(len(content))
        elif served.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(status)
        for key, value in {**headers, "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._body(content, chunked=served.framing == "chunked")
        return None

    def _body(self, content: bytes, *, chunked: bool) -> None:
        time.sleep(self.state.stall)
        ends = self.state.cut.pop(0) if self.state.cut else None
        content = content[:ends]
        if chunked:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            if ends is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(content)
