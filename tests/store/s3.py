"""A server that speaks S3, on the loopback: moto's, with a record of its requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import from_url
from werkzeug.serving import make_server

BUCKET = "features"

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class S3:
    """The server.

    Attributes
    ----------
    url
        Its endpoint.
    requests
        Method and key of each request, in their order.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
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
