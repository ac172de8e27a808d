"""A server that speaks S3, on the loopback: moto's, with a record of its requests."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import from_url
from werkzeug.serving import make_server

BUCKET = "features"

_NOTHING = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>features</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
    b"<IsTruncated>false</IsTruncated></ListBucketResult>"
)

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class S3:
    """The server.

    Attributes
    ----------
    url
        Its endpoint.
    requests
        Method and key of each request, in their order.
    is_lagging
        Whether lists do not yet have anything.
    busy
        How many requests are still refused, as by a host that has too many.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.is_lagging = False
        self.busy = 0
        self._answer: Application = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").removeprefix("/")
        query = environ.get("QUERY_STRING", "")
        self.requests.append((environ["REQUEST_METHOD"], key or query))
        if self.busy:
            self.busy -= 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if self.is_lagging and "list-type=2" in query:
            start_response("200 OK", [("Content-Type", "application/xml")])
            return [_NOTHING]
        return self._answer(environ, start_response)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def counted(self) -> Iterator[list[tuple[str, str]]]:
        """Give a list that has the requests of the body after it."""
        start, asked = len(self.requests), []
        yield asked
        asked += self.requests[start:]


class _Proxy:
    """Stands before a server.

    Attributes
    ----------
    url
        Its endpoint.
    """

    def __init__(self, server: S3) -> None:
        self._target = server.url
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        host, port = self._target.removeprefix("http://").split(":")
        while True:
            try:
                client = self._socket.accept()[0]
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            for copy, source, target in (
                (self._send, client, server),
                (self._answer, server, client),
            ):
                threading.Thread(target=copy, args=(source, target), daemon=True).start()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        _copy(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        _copy(server, client)


class CuttingProxy(_Proxy):
    """Breaks connections off, in the middle of what they send.

    Attributes
    ----------
    left
        How many connections are still broken off.
    """

    def __init__(self, server: S3, *, after: int, times: int) -> None:
        self.left = times
        self._after = after
        super().__init__(server)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with suppress(OSError):
            while content := client.recv(2**10):
                sent += len(content)
                if sent > self._after and self.left:
                    self.left -= 1
                    for end in (client, server):
                        # Not closed but reset, as where a network breaks.
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RDWR)
                        end.close()
                    return
                server.sendall(content)


class SlowProxy(_Proxy):
    """A slow line, of some bytes a second each way; answers stop for ever behind some bytes."""

    def __init__(self, server: S3, rate: int, *, stops_after: float = float("inf")) -> None:
        self._rate = rate
        self._stops_after = stops_after
        super().__init__(server)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        _copy(client, server, self._rate)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        _copy(server, client, self._rate, self._stops_after)


def _copy(
    source: socket.socket,
    target: socket.socket,
    rate: int | None = None,
    n_bytes: float = float("inf"),
) -> None:
    copied = 0
    with suppress(OSError):
        while content := source.recv(2**14):
            target.sendall(content)
            copied += len(content)
            if copied >= n_bytes:
                return
            if rate is not None:
                time.sleep(len(content) / rate)
        target.close()


def objects_below(url: str) -> dict[str, bytes]:
    """Return everything below a URL."""
    store = from_url(url, client_options={"allow_http": True})
    names = [file["path"] for page in obstore.list(store) for file in page]
    return {name: obstore.get(store, name).bytes().to_bytes() for name in names}


def upload(folder: Path, url: str) -> None:
    """Copy a store to where it is read from, as any tool would."""
    objects = from_url(url, client_options={"allow_http": True})
    for file in folder.rglob("*"):
        if file.is_file():
            obstore.put(objects, file.relative_to(folder).as_posix(), file.read_bytes())


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set what a user sets for a server of their own."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
