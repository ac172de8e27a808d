"""Files over HTTP, from a server that does what servers and networks do."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weights.weights_server import Server, serving, sha256
from vitfeat.weights import download as module
from vitfeat.weights.download import (
    ContentError,
    DownloadError,
    StatusError,
    download,
    headers_of,
    locked,
)

OLD = bytes(range(256)) * 400
NEW = bytes(reversed(OLD))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module, "SECONDS_BETWEEN_TRIES", 0.0)
    with serving() as state:
        yield state


def get(url: str, folder: Path, **more: Any) -> str:
    arguments = {"name": "mine", "progress": False, **more}
    return download(url, folder / "model.bin", folder / "model.bin.part", **arguments)


def cut(server: Server, url: str, folder: Path, **more: Any) -> None:
    """Leave half a file: the connection breaks and no later one brings more."""
    server.cut = [len(OLD) // 2, *[0] * module.TRIES]
    with pytest.raises(DownloadError, match=r"the connection ended after 51,200 of 102,400 bytes"):
        get(url, folder, **more)
    assert not server.cut
    assert (folder / "model.bin.part").stat().st_size == len(OLD) // 2
    assert not (folder / "model.bin").exists()
    server.asked.clear()


def test_a_file_comes_whole_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    folder = tmp_path / "to" / "make"
    assert get(url, folder, sha256=sha256(OLD)) == sha256(OLD)
    assert [p.name for p in folder.iterdir()] == ["model.bin"]
    assert (folder / "model.bin").read_bytes() == OLD


@pytest.mark.parametrize(
    ("version", "validator"),
    [
        ({"etag": '"1"'}, '"1"'),
        ({"modified": "Tue, 01 Jul 2025 10:00:00 GMT"}, "Tue, 01 Jul 2025 10:00:00 GMT"),
        (
            {"etag": 'W/"1"', "modified": "Tue, 01 Jul 2025 10:00:00 GMT"},
            "Tue, 01 Jul 2025 10:00:00 GMT",
        ),
    ],
)
def test_a_later_call_goes_on_where_one_was_cut(
    server: Server, tmp_path: Path, version: dict[str, str], validator: str
) -> None:
    url = server.publish("model.bin", content=OLD, **version)
    cut(server, url, tmp_path)
    assert get(url, tmp_path) == sha256(OLD)
    (asked,) = server.asked
    assert asked.headers["range"] == "bytes=51200-"
    assert asked.headers["if-range"] == validator
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_a_call_goes_on_by_itself_while_bytes_come(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    server.cut = [1000] * (module.TRIES + 3)
    assert get(url, tmp_path) == sha256(OLD)
    starts = [a.headers.get("range") for a in server.asked]
    assert starts == [None, *(f"bytes={1000 * n}-" for n in range(1, module.TRIES + 4))]
    assert caplog.messages[0] == (
        "mine: the connection ended after 1,000 of 102,400 bytes; trying to go on"
    )


def test_without_a_network_it_says_so_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("waited"))
    with serving() as server:
        url = server.publish("model.bin", content=OLD)
    with pytest.raises(DownloadError, match="refused"):
        get(url, tmp_path)


def test_a_silent_server_is_not_waited_for_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    url = server.publish("model.bin", content=OLD, etag='"1"')
    server.stall = 0.5
    with pytest.raises(DownloadError, match="timed out"):
        get(url, tmp_path)


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("content", [NEW, NEW[:60000], NEW[:1000]])
def test_versions_are_not_mixed(
    server: Server, tmp_path: Path, content: bytes, if_range: bool
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    # Also by servers that send the rest of any version.
    server.publish("model.bin", content=content, etag='"2"', if_range=if_range)
    assert get(url, tmp_path) == sha256(content)
    assert (tmp_path / "model.bin").read_bytes() == content


def test_another_length_is_another_version(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    server.publish("model.bin", content=NEW + b"more", etag='"1"')
    assert get(url, tmp_path) == sha256(NEW + b"more")


def test_another_address_is_another_file(server: Server, tmp_path: Path) -> None:
    cut(server, server.publish("old.bin", content=OLD, etag='"1"'), tmp_path)
    assert get(server.publish("new.bin", content=NEW, etag='"1"'), tmp_path) == sha256(NEW)


def test_nothing_is_continued_that_neither_version_nor_sum_vouch_for(
    server: Server, tmp_path: Path
) -> None:
    url = server.publish("model.bin", content=OLD)
    server.cut = [len(OLD) // 2] * module.TRIES + [0]
    with pytest.raises(DownloadError):
        get(url, tmp_path)
    server.publish("model.bin", content=NEW)
    server.cut.clear()
    assert get(url, tmp_path) == sha256(NEW)
    assert not any("range" in asked.headers for asked in server.asked)


def test_a_known_sum_vouches_for_a_part(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path, sha256=sha256(OLD))
    # The storage of the hub calls a file differently from time to time.
    server.publish("model.bin", content=OLD, etag='"2"')
    assert get(url, tmp_path, sha256=sha256(OLD)) == sha256(OLD)
    (asked,) = server.asked
    assert asked.headers["range"] == "bytes=51200-"
    assert "if-range" not in asked.headers


def test_parts_that_do_not_fit_are_downloaded_anew(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.publish("model.bin", content=NEW)
    cut(server, url, tmp_path, sha256=sha256(OLD))
    server.publish("model.bin", content=OLD)
    caplog.clear()
    assert get(url, tmp_path, sha256=sha256(OLD)) == sha256(OLD)
    assert "range" in server.asked[0].headers
    assert "range" not in server.asked[1].headers
    assert caplog.messages == ["mine: its parts do not fit together; downloading it anew"]


def test_a_part_for_another_sum_is_not_continued(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path, sha256=sha256(OLD))
    server.publish("model.bin", content=NEW, etag='"1"')
    assert get(url, tmp_path, sha256=sha256(NEW)) == sha256(NEW)
    assert "range" not in server.asked[0].headers


def test_a_whole_part_needs_no_server(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    with (tmp_path / "model.bin.part").open("ab") as part:
        part.write(OLD[len(OLD) // 2 :])
    assert get(url, tmp_path) == sha256(OLD)
    assert not server.asked


def test_a_whole_part_that_is_wrong_is_downloaded_anew(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path, sha256=sha256(OLD))
    (tmp_path / "model.bin.part").write_bytes(NEW)
    assert get(url, tmp_path, sha256=sha256(OLD)) == sha256(OLD)


def test_a_note_never_stands_beside_bytes_of_another_version(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    server.publish("model.bin", content=NEW, etag='"2"')
    with monkeypatch.context() as patch:
        patch.setattr(module._Download, "_append", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            get(url, tmp_path)
    assert get(url, tmp_path) == sha256(NEW)


def test_an_answer_that_starts_elsewhere_is_not_appended(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    server.files["/model.bin"].from_start = True
    caplog.clear()
    assert get(url, tmp_path) == sha256(OLD)
    assert not caplog.messages


@pytest.mark.parametrize("note", ["", "[]", "{}", None])
def test_a_part_without_its_note_is_not_continued(
    server: Server, tmp_path: Path, note: str | None
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    path = tmp_path / "model.bin.part.json"
    path.unlink() if note is None else path.write_text(note)
    assert get(url, tmp_path) == sha256(OLD)
    assert "range" not in server.asked[0].headers


def test_servers_without_ranges(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"', ranges=False)
    server.cut = [51200] * module.TRIES + [51200]
    with pytest.raises(DownloadError, match="51,200 of 102,400 bytes"):
        get(url, tmp_path)
    assert not server.cut
    assert get(url, tmp_path) == sha256(OLD)


def test_a_wrong_file_is_removed(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=NEW, etag='"1"')
    (tmp_path / "model.bin").write_bytes(b"before")
    with pytest.raises(ContentError) as info:
        get(url, tmp_path, sha256=sha256(OLD))
    assert info.value.sha256 == sha256(NEW)
    assert len(server.asked) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]
    assert (tmp_path / "model.bin").read_bytes() == b"before"


def test_a_full_disk_loses_nothing(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    # A limit of the kernel on the size of files, in a process of its own.
    script = (
        "import resource, sys; from pathlib import Path;"
        "from vitfeat.weights.download import download;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (70000, 70000));"
        "target = Path(sys.argv[2]);"
        "download(sys.argv[1], target, target.with_name('model.bin.part'),"
        " name='', progress=False)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, url, str(tmp_path / "model.bin")],
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"OSError: [Errno {errno.EFBIG}]" in run.stderr.splitlines()[-1]
    assert (tmp_path / "model.bin.part").read_bytes() == OLD[:70000]
    assert get(url, tmp_path) == sha256(OLD)
    assert server.asked[-1].headers["range"] == "bytes=70000-"


def test_where_a_file_ends(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, framing="none")
    with pytest.raises(DownloadError, match=r"how long the file is.*: give its sha256"):
        get(url, tmp_path)
    assert get(url, tmp_path, sha256=sha256(OLD)) == sha256(OLD)
    assert get(url, tmp_path, size=len(OLD)) == sha256(OLD)
    server.publish("model.bin", content=OLD, framing="chunked")
    assert get(url, tmp_path) == sha256(OLD)
    server.cut = [1000] * module.TRIES + [1000]
    with pytest.raises(DownloadError, match="the connection broke"):
        get(url, tmp_path)


def test_a_wrong_length(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    with pytest.raises(DownloadError, match=r"the server has 102,400 bytes of it, not 7"):
        get(url, tmp_path, size=7)


def test_a_web_page_is_no_file(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.bin", content=OLD, kind="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match="a web page and not with a file"):
        get(url, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [403, 404, 503])
def test_errors_of_servers(server: Server, tmp_path: Path, status: int) -> None:
    url = server.publish("model.bin", content=OLD, status=status)
    with pytest.raises(StatusError, match=f"^HTTP {status} ") as info:
        get(url, tmp_path)
    assert info.value.status == status
    assert len(server.asked) == 1


def test_redirects_are_followed_and_get_no_token(server: Server, tmp_path: Path) -> None:
    server.publish("model.bin", content=OLD, etag='"1"')
    server.publish("away", content=b"", redirect=(308, f"{server.other_url}/model.bin"))
    url = server.publish("here", content=b"", redirect=(302, "/away"))
    cut(server, url, tmp_path, token="secret")
    assert get(url, tmp_path, token="secret") == sha256(OLD)
    assert [(a.path, a.host) for a in server.asked] == [
        ("/here", "127.0.0.1"),
        ("/away", "127.0.0.1"),
        ("/model.bin", "localhost"),
    ]
    tokens = [a.headers.get("authorization") for a in server.asked]
    assert tokens == ["Bearer secret", "Bearer secret", None]
    assert {a.headers["range"] for a in server.asked} == {"bytes=51200-"}


@pytest.mark.parametrize("there", ["ftp://127.0.0.1/model.bin", "file:///etc/passwd"])
def test_redirects_elsewhere_are_refused(server: Server, tmp_path: Path, there: str) -> None:
    url = server.publish("model.bin", content=b"", redirect=(302, there))
    with pytest.raises(DownloadError, match=there):
        get(url, tmp_path)
    assert not list(tmp_path.iterdir())


def test_headers(server: Server) -> None:
    server.publish("model.bin", content=OLD, etag='"1"')
    url = server.publish("here", content=b"", redirect=(302, "/model.bin"))
    headers = headers_of(url, "secret")
    assert (headers["ETag"], headers["Content-Length"]) == ('"1"', "102400")
    assert {(a.method, a.headers["authorization"]) for a in server.asked} == {
        ("HEAD", "Bearer secret")
    }
    linked = server.publish(
        "there", content=b"", redirect=(302, "/model.bin"), headers={"X-Linked-Etag": '"2"'}
    )
    # The hub says what the file is in the redirect to it.
    assert headers_of(linked)["X-Linked-Etag"] == '"2"'
    with pytest.raises(StatusError, match="HTTP 404"):
        headers_of(f"{server.url}/absent")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(_Terminal, True, True), (_Terminal, False, False), (io.StringIO, True, False)],
)
def test_the_bar(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: type[io.StringIO],
    progress: bool,
    shown: bool,
) -> None:
    url = server.publish("model.bin", content=OLD, etag='"1"')
    cut(server, url, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream())
        get(url, tmp_path, progress=progress)
        written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    if shown:
        # It starts where the file does.
        assert "mine:  50%" in written
        assert "100k/100k" in written
    else:
        assert not written


def test_one_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    class Wait(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            order.append(record.getMessage())
            waiting.set()

    def second() -> None:
        with locked(tmp_path / "sub" / "lock", "the file"):
            order.append("second")

    handler = Wait()
    module.logger.addHandler(handler)
    thread = threading.Thread(target=second)
    with locked(tmp_path / "sub" / "lock", "the file"):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join()
    module.logger.removeHandler(handler)
    assert order == [
        "waiting for another process that is fetching the file",
        "first",
        "second",
    ]
