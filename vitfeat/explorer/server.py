"""The explorer's server: on the loopback, for who has its link, with parts of files.

The link's first part is a token. A page of another site cannot know it, and is refused by its
Origin, and by the Host that it would have to reach this server under (DNS rebinding).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

from vitfeat.errors import VitfeatError
from vitfeat.explorer.content import Content

LOOPBACK = "127.0.0.1"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""What the page may load: itself. Plots set styles."""


class Server(ThreadingHTTPServer):
    """Serves the content of some results on a port of the loopback.

    Parameters
    ----------
    content
        What is served.
    port
        0 takes a free one.
    """

    daemon_threads = True
    # A page asks for dozens of thumbnails at once.
    request_queue_size = 128

    def __init__(self, content: Content, port: int = 0) -> None:
        self.content = content
        self.token = secrets.token_urlsafe(16)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser calls this server."""
        return f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def link(self) -> str:
        """Where the page is."""
        return f"http://{self.hosts[0]}/{self.token}/"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve from a thread, and give the link."""
        self._thread = Thread(target=self.serve_forever, args=[0.05], daemon=True)
        self._thread.start()
        try:
            yield self.link
        finally:
            self.shutdown()
            self._thread.join()
            self.server_close()

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        with suppress(KeyboardInterrupt):
            self._thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that a browser has closed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    # Head and body of an answer leave together, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def version_string(self) -> str:
        return "vitfeat"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if (refusal := self._refusal()) is not None:
            self._send(HTTPStatus.FORBIDDEN, refusal.encode(), "text/plain", body=body)
            return
        path = unquote(urlsplit(self.path).path).split("/", 2)[2]
        try:
            held = self.server.content.read(path)
            size = held.size
            span = _span(self.headers.get("Range"), size)
            if span is None:
                self._send(HTTPStatus.OK, held.part(0, size), held.type, body=body)
            elif span[0] >= span[1]:
                whole = (("Content-Range", f"bytes */{size}"),)
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                self._send(status, b"", held.type, whole, body=body)
            else:
                part = (("Content-Range", f"bytes {span[0]}-{span[1] - 1}/{size}"),)
                self._send(HTTPStatus.PARTIAL_CONTENT, held.part(*span), held.type, part, body=body)
        except (VitfeatError, OSError) as error:
            self._send(HTTPStatus.NOT_FOUND, str(error).encode(), "text/plain", body=body)

    def _refusal(self) -> str | None:
        """Return why a request is refused, if it is."""
        hosts = self.server.hosts
        if self.headers.get("Host") not in hosts:
            return "not a name of this server"
        if self.headers.get("Origin") not in (None, *(f"http://{host}" for host in hosts)):
            return "a page of another site"
        if self.headers.get("Sec-Fetch-Site") == "cross-site":
            return "a page of another site"
        token, slash, _ = urlsplit(self.path).path[1:].partition("/")
        known = compare_digest(token.encode(), self.server.token.encode())
        if not (known and slash):
            return "the link that `vitfeat explore` printed is needed, all of it"
        return None

    def _send(
        self,
        status: HTTPStatus,
        content: bytes,
        kind: str,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        body: bool,
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Accept-Ranges", "bytes"),
            # Of stores and tables the next run of the workflow makes others.
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return which bytes are asked for, (start, stop); None for all.

    Several ranges at once, and what is no range, are answered with everything, as a server may.
    """
    asked = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header or "")
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)
