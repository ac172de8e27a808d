"""Weights from a model hub and from a URL, both served by this machine.

The hub's client reads its settings when it is imported, so what concerns the hub runs in processes
of its own, with the environment as users set it.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.weights.weights_server import Repository, Server, serving, sha256
from vitfeat.errors import ModelError
from vitfeat.weights import download as transport
from vitfeat.weights.fetch import ensure
from vitfeat.weights.records import WeightsRecord, WeightsSource, place, present, record_path

OLD = bytes(range(256)) * 400
NEW = bytes(reversed(OLD))
FIRST, SECOND = "1" * 40, "2" * 40

_SCRIPT = """
import json, logging, sys
from pathlib import Path
from vitfeat.errors import ModelError
from vitfeat.weights import download
from vitfeat.weights.fetch import ensure
from vitfeat.weights.records import WeightsSource, present

download.SECONDS_BETWEEN_TRIES = 0.0
value, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
source = WeightsSource.from_config(value, "here")
answer = {"present": present(source, folder, "mine"), "log": [], "error": None}

class Kept(logging.Handler):
    def emit(self, record):
        answer["log"].append(record.getMessage())

logging.getLogger("vitfeat").addHandler(Kept())
logging.getLogger("vitfeat").setLevel("INFO")
try:
    ensure("mine", source, folder)
except ModelError as error:
    answer["error"] = str(error)
answer["modules"] = "torch" in sys.modules
print(json.dumps(answer))
"""


@dataclass
class Ran:
    """What came of fetching in a process of its own."""

    present: bool
    log: list[str]
    error: str | None
    modules: bool
    stderr: str


@dataclass
class Hub:
    """A hub, a home of its client's cache, and a folder of weights."""

    server: Server
    home: Path
    folder: Path

    def start(self, value: Any, **environment: str) -> subprocess.Popen[str]:
        theirs = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        ours = {
            "HF_ENDPOINT": self.server.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
        }
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, json.dumps(value), str(self.folder)],
            env={**theirs, **ours, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def end(process: subprocess.Popen[str]) -> Ran:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        ran = Ran(**json.loads(out), stderr=err)
        assert not ran.modules
        assert "\n" not in (ran.error or "")
        return ran

    def fetch(self, value: Any, **environment: str) -> Ran:
        return self.end(self.start(value, **environment))

    def fails(self, value: Any, **environment: str) -> str:
        """Fetch what cannot be fetched, and return the message."""
        before = self.record() if record_path(self.folder, "mine").exists() else None
        error = self.fetch(value, **environment).error
        assert error is not None
        assert error.startswith("model mine: ")
        after = self.record() if record_path(self.folder, "mine").exists() else None
        assert after == before
        return error

    def record(self) -> WeightsRecord:
        return WeightsRecord.read(record_path(self.folder, "mine"))

    @property
    def blobs(self) -> Path:
        return self.home / "hub" / "models--owner--name" / "blobs"

    def content(self) -> bytes:
        """Return the bytes that the record names, which must be those it tells of."""
        record = self.record()
        content = record.path.read_bytes()
        assert (record.sha256, record.bytes) == (sha256(content), len(content))
        return content


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving() as server:
        commits = {
            FIRST: {"model.safetensors": OLD, "sub/other.bin": b"other"},
            SECOND: {"model.safetensors": NEW},
        }
        refs = {"main": FIRST, "v1": FIRST, "refs/pr/1": SECOND}
        server.repositories["owner/name"] = Repository(commits, refs)
        yield Hub(server, tmp_path / "home", tmp_path / "weights")


# The hub.


def test_main_is_pinned_by_the_record(hub: Hub) -> None:
    ran = hub.fetch("owner/name")
    assert ran.error is None
    assert not ran.present
    record = hub.record()
    assert record.source == WeightsSource.from_config("owner/name", "")
    assert (record.repository, record.revision, record.url) == ("owner/name", FIRST, None)
    assert (record.file, record.placed) == ("model.safetensors", False)
    assert hub.content() == OLD
    # In the cache, as other tools find it.
    assert record.path.is_relative_to(hub.home / "hub" / "models--owner--name" / "snapshots")
    assert [p.name for p in hub.blobs.iterdir()] == [sha256(OLD)]
    assert [a.path for a in hub.server.bodies()] == [f"/storage/{sha256(OLD)}"]
    assert ran.log == [f"mine: fetching model.safetensors of owner/name@{FIRST} (100.0 KiB)"]
    # No bar in a log file.
    assert ran.stderr == ""

    # Again, the branch having moved: what was recorded is meant, and here.
    hub.server.repositories["owner/name"].refs["main"] = SECOND
    hub.server.asked.clear()
    again = hub.fetch("owner/name")
    assert (again.error, again.present, again.log) == (None, True, [])
    assert hub.record() == record
    assert not hub.server.asked

    # Lost from the cache, it is that commit's file which is fetched.
    for path in hub.home.rglob("*"):
        if path.is_symlink() or path.is_file():
            path.unlink()
    assert hub.fetch("owner/name").error is None
    assert hub.record() == record
    assert hub.content() == OLD


@pytest.mark.parametrize(
    ("value", "commit", "content"),
    [
        ("owner/name@v1", FIRST, OLD),
        ("owner/name@refs/pr/1", SECOND, NEW),
        (f"owner/name@{SECOND}", SECOND, NEW),
        ({"repository": "owner/name", "file": "sub/other.bin"}, FIRST, b"other"),
        ({"repository": "owner/name", "sha256": sha256(OLD)}, FIRST, OLD),
    ],
)
def test_revisions_and_files(hub: Hub, value: Any, commit: str, content: bytes) -> None:
    assert hub.fetch(value).error is None
    assert hub.record().revision == commit
    assert hub.content() == content


def test_the_second_name_if_the_first_is_absent(hub: Hub) -> None:
    hub.server.repositories["owner/name"].commits[FIRST] = {"pytorch_model.bin": OLD}
    assert hub.fetch("owner/name").error is None
    assert hub.record().file == "pytorch_model.bin"
    assert hub.content() == OLD


def test_not_the_second_name_if_the_first_fails(hub: Hub) -> None:
    repository = hub.server.repositories["owner/name"]
    repository.commits[FIRST]["pytorch_model.bin"] = NEW
    repository.fails = "model.safetensors"
    assert "could not be fetched (Come back later)" in hub.fails("owner/name")


def test_small_files_have_gits_sum_on_the_hub(hub: Hub) -> None:
    hub.server.repositories["owner/name"].large = False
    assert "(100.0 KiB)" in hub.fetch("owner/name").log[0]
    assert hub.content() == OLD
    assert len(hub.record().path.readlink().name) == 40
    wrong = {"repository": "owner/name", "revision": SECOND, "sha256": sha256(OLD)}
    error = hub.fails(wrong)
    assert f"have SHA-256 {sha256(NEW)}, needed is {sha256(OLD)} (by the entry's sha256)" in error


def test_a_cut_download_goes_on_in_a_later_run(hub: Hub) -> None:
    hub.server.cut = [50000, *[0] * transport.TRIES]
    error = hub.fails("owner/name")
    assert "the connection ended after 50,000 of 102,400 bytes" in error
    part = hub.blobs / f"{sha256(OLD)}.vitfeat.incomplete"
    assert part.read_bytes() == OLD[:50000]
    hub.server.asked.clear()
    assert hub.fetch("owner/name").error is None
    assert [a.headers["range"] for a in hub.server.bodies()] == ["bytes=50000-"]
    assert hub.content() == OLD
    assert [p.name for p in hub.blobs.iterdir()] == [sha256(OLD)]


def test_two_processes_fetch_once(hub: Hub) -> None:
    hub.server.stall = 1.0
    processes = [hub.start("owner/name") for _ in range(2)]
    runs = [hub.end(process) for process in processes]
    assert [run.error for run in runs] == [None, None]
    assert hub.content() == OLD
    assert len(hub.server.bodies()) == 1
    waited = (
        "waiting for another process that is fetching repository owner/name, "
        "file model.safetensors or pytorch_model.bin"
    )
    assert [waited in run.log for run in runs].count(True) == 1


def test_a_file_that_is_not_what_the_hub_says(hub: Hub) -> None:
    hub.server.repositories["owner/name"].told_sha256 = sha256(NEW)
    error = hub.fails("owner/name")
    assert f"has SHA-256 {sha256(OLD)}, and {sha256(NEW)} by the hub; it was removed" in error
    assert not list(hub.blobs.iterdir())
    hub.server.repositories["owner/name"].told_sha256 = None
    hub.server.repositories["owner/name"].told_size = 7
    assert "the server has 102,400 bytes of it, not 7" in hub.fails("owner/name")
    hub.server.repositories["owner/name"].told_size = None
    assert hub.fetch("owner/name").error is None


def test_a_sum_that_the_hub_does_not_have_is_not_downloaded(hub: Hub) -> None:
    error = hub.fails({"repository": "owner/name", "revision": "v1", "sha256": sha256(NEW)})
    assert f"SHA-256 {sha256(OLD)}, needed is {sha256(NEW)} (by the entry's sha256)" in error
    assert not hub.server.bodies()


def test_a_damaged_cache_is_mended(hub: Hub) -> None:
    assert hub.fetch("owner/name").error is None
    record = hub.record()
    record.path.resolve().write_bytes(b"x" * len(OLD))
    # Its record tells.
    error = hub.fails("owner/name")
    found = sha256(b"x" * len(OLD))
    assert f"{record.path} has changed since it was recorded: it has SHA-256 {found}" in error
    assert f"mine.json says {sha256(OLD)}; remove the file, to have it fetched again" in error
    assert "run `vitfeat fetch mine`" in error

    # Without the record, the name that the cache gave it.
    aside = record_path(hub.folder, "mine").rename(hub.folder / "aside")
    error = hub.fails("owner/name")
    assert f"cache was damaged: {record.path} had SHA-256 {found}, and {sha256(OLD)}" in error
    assert not list(hub.blobs.iterdir())
    assert not record.path.is_symlink()
    assert hub.fetch("owner/name").error is None
    assert hub.content() == OLD

    # With the file removed, as the message says: the link only, so that the blob is found damaged.
    aside.rename(record_path(hub.folder, "mine"))
    record.path.resolve().write_bytes(b"x" * len(OLD))
    record.path.unlink()
    ran = hub.fetch("owner/name")
    assert ran.error is None
    assert ran.log[0] == "mine: the hub's cache has a damaged copy; fetching it anew"
    assert hub.content() == OLD


@pytest.mark.parametrize(
    ("value", "names"),
    [("owner/name", ["main"]), ("owner/name@v1", ["v1"]), (f"owner/name@{FIRST}", [])],
)
def test_what_the_cache_has_needs_no_network(hub: Hub, value: str, names: list[str]) -> None:
    assert hub.fetch(value).error is None
    record = hub.record()
    refs = hub.blobs.with_name("refs")
    assert [p.name for p in refs.glob("*")] == names
    # Another project on the same machine.
    record_path(hub.folder, "mine").unlink()
    hub.server.asked.clear()
    ran = hub.fetch(value, HF_HUB_OFFLINE="1")
    assert (ran.error, ran.present) == (None, True)
    assert ran.log == [f"mine: found model.safetensors of owner/name@{FIRST} in the cache"]
    assert not hub.server.asked
    assert hub.record() == record
    # Another user's cache.
    record_path(hub.folder, "mine").unlink()
    ran = hub.fetch(value, HF_HUB_CACHE=str(hub.home / "empty"), HF_HUB_OFFLINE="1")
    assert not ran.present
    assert "HF_HUB_OFFLINE is set" in (ran.error or "")


def test_offline(hub: Hub) -> None:
    error = hub.fails("owner/name@v1", HF_HUB_OFFLINE="1")
    places = (place(hub.folder, "mine", f) for f in ("model.safetensors", "pytorch_model.bin"))
    assert error == (
        "model mine: its weights (repository owner/name, revision v1, file model.safetensors or "
        "pytorch_model.bin) are not on this machine and could not be fetched (HF_HUB_OFFLINE is "
        "set); run `vitfeat fetch mine` where there is a network, or place the file at "
        + " or ".join(map(str, places))
    )
    assert not hub.server.asked
    gone = hub.fails("owner/name@v1", HF_ENDPOINT="http://127.0.0.1:9")
    refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert gone == error.replace("HF_HUB_OFFLINE is set", str(refused))
    # The file that the message names, at the place that it names.
    path = place(hub.folder, "mine", "model.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(OLD)
    ran = hub.fetch("owner/name@v1", HF_HUB_OFFLINE="1")
    assert (ran.error, ran.present) == (None, True)
    assert ran.log == [f"mine: found {path}, SHA-256 {sha256(OLD)} (taken as it is)"]
    record = hub.record()
    assert (record.repository, record.revision, record.placed) == ("owner/name", None, True)
    assert record.path == path
    assert hub.content() == OLD


def test_offline_after_the_file_was_lost(hub: Hub) -> None:
    assert hub.fetch("owner/name").error is None
    record = hub.record()
    record.path.unlink()
    error = hub.fails("owner/name", HF_HUB_OFFLINE="1")
    assert f"(repository owner/name, revision {FIRST}, file model.safetensors)" in error
    path = place(hub.folder, "mine", "model.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(NEW)
    error = hub.fails("owner/name", HF_HUB_OFFLINE="1")
    assert f"{path} has SHA-256 {sha256(NEW)}, needed is {sha256(OLD)} (by {hub.folder}" in error
    path.write_bytes(OLD)
    assert hub.fetch("owner/name", HF_HUB_OFFLINE="1").error is None
    # The same bytes are the same commit's.
    assert (hub.record().revision, hub.record().placed) == (FIRST, True)


def test_gated_repositories(hub: Hub) -> None:
    repository = hub.server.repositories["owner/name"]
    repository.token = "hf_mine"
    for refuses in (
        (401, "GatedRepo", "Access to model owner/name is restricted."),
        (403, "GatedRepo", "You are not in the authorized list."),
        (403, "", "Please enable access to public gated repositories in your token."),
    ):
        repository.refuses = refuses
        assert hub.fails("owner/name") == (
            f"model mine: the repository owner/name is gated ({refuses[2]}): accept its licence on "
            f"{hub.server.url}/owner/name, set HF_TOKEN to an access token of the same account, "
            f"and run `vitfeat fetch mine`"
        )
    assert hub.fetch("owner/name", HF_TOKEN="hf_mine").error is None
    assert hub.content() == OLD
    # The storage is another server, and needs no token.
    assert "authorization" not in hub.server.bodies()[0].headers


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "owner/other",
            "the hub shows no repository owner/other (Invalid username or password.): correct its "
            "name, or, if it is private or gated, set HF_TOKEN to a valid access token that may "
            "read it",
        ),
        ("owner/name@v3", "the repository owner/name has no revision v3; "),
        (
            {"repository": "owner/name", "file": "absent.bin"},
            "not found: repository owner/name, file absent.bin; ",
        ),
        (
            f"owner/empty@{SECOND}",
            f"not found: repository owner/empty, revision {SECOND}, file model.safetensors or "
            "pytorch_model.bin; ",
        ),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, value: Any, message: str) -> None:
    hub.server.repositories["owner/empty"] = Repository({SECOND: {}}, {})
    assert hub.fails(value).startswith(f"model mine: {message}")


def test_what_is_no_hub(hub: Hub) -> None:
    hub.server.publish("owner/name/resolve/main/model.safetensors", content=OLD, etag='"1"')
    hub.server.repositories["owner/name"].refuses = (503, "", "")
    assert "could not be fetched (HTTP 503 Service Unavailable)" in hub.fails("owner/name")
    with serving() as other:
        other.files["/hub/owner/name/resolve/main/model.safetensors"] = hub.server.files[
            "/owner/name/resolve/main/model.safetensors"
        ]
        endpoint = f"{other.url}/hub"
        error = hub.fails("owner/name", HF_ENDPOINT=endpoint)
    assert f"{endpoint} does not answer as a model hub: check HF_ENDPOINT" in error


def test_a_source_that_changed_is_fetched(hub: Hub) -> None:
    assert hub.fetch("owner/name@v1").error is None
    ran = hub.fetch("owner/name@refs/pr/1")
    assert (ran.error, ran.present) == (None, False)
    assert hub.record().revision == SECOND
    assert hub.content() == NEW


# Other servers.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(transport, "SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as state:
        yield state


def _source(url: str, digest: str | None = None) -> WeightsSource:
    return WeightsSource.from_config({"url": url, "sha256": digest}, "")


def test_a_url(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    record = ensure("mine", _source(url), tmp_path)
    assert record == WeightsRecord.read(record_path(tmp_path, "mine"))
    assert (record.repository, record.revision, record.url) == (None, None, url)
    assert (record.file, record.sha256, record.bytes) == ("model.pth", sha256(OLD), len(OLD))
    assert record.path == tmp_path / "mine" / "model.pth"
    assert record.path.read_bytes() == OLD
    assert not record.placed
    assert caplog.messages == [f"mine: fetching {url}"]
    # Nobody is asked again, also if what is there has changed.
    server.publish("model.pth", content=NEW, etag='"2"')
    server.asked.clear()
    assert ensure("mine", _source(url), tmp_path) == record
    assert not server.asked


def test_models_do_not_share_what_is_called_alike(server: Server, tmp_path: Path) -> None:
    one = server.publish("one/model.pth", content=OLD, etag='"1"')
    two = server.publish("two/model.pth", content=NEW, etag='"1"')
    assert ensure("one", _source(one), tmp_path).sha256 == sha256(OLD)
    assert ensure("two", _source(two), tmp_path).sha256 == sha256(NEW)


def test_a_cut_url_goes_on_in_a_later_call(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    server.cut = [50000, *[0] * transport.TRIES]
    with pytest.raises(ModelError, match=r"could not be fetched \(the connection ended after"):
        ensure("mine", _source(url), tmp_path)
    assert not present(_source(url), tmp_path, "mine")
    assert (tmp_path / "mine" / "model.pth.part").read_bytes() == OLD[:50000]
    assert ensure("mine", _source(url), tmp_path).sha256 == sha256(OLD)
    assert server.asked[-1].headers["range"] == "bytes=50000-"


def test_a_url_of_other_content(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    message = rf"have SHA-256 {sha256(OLD)}, needed is {sha256(NEW)} \(by the entry's sha256\)"
    with pytest.raises(ModelError, match=message):
        ensure("mine", _source(url, sha256(NEW)), tmp_path)
    assert not (tmp_path / "mine" / "model.pth").exists()
    assert ensure("mine", _source(url, sha256(OLD)), tmp_path).sha256 == sha256(OLD)


def test_a_url_that_was_published_anew(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    ensure("mine", _source(url), tmp_path).path.unlink()
    server.publish("model.pth", content=NEW, etag='"2"')
    with pytest.raises(ModelError, match=r"needed is .* \(by .*mine\.json\);.* remove that record"):
        ensure("mine", _source(url), tmp_path)
    record_path(tmp_path, "mine").unlink()
    assert ensure("mine", _source(url), tmp_path).sha256 == sha256(NEW)


def test_a_file_that_changed_since(server: Server, tmp_path: Path) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    path = ensure("mine", _source(url), tmp_path).path
    path.write_bytes(NEW)
    with pytest.raises(ModelError, match=r"has changed since .*; remove the file, to have it"):
        ensure("mine", _source(url), tmp_path)
    # Both remedies.
    path.unlink()
    assert ensure("mine", _source(url), tmp_path).sha256 == sha256(OLD)
    path.write_bytes(NEW)
    record_path(tmp_path, "mine").unlink()
    taken = ensure("mine", _source(url), tmp_path)
    assert (taken.sha256, taken.placed) == (sha256(NEW), True)
    path.write_bytes(OLD)
    with pytest.raises(ModelError, match=r"has changed since .*; put it back"):
        ensure("mine", _source(url), tmp_path)


def test_another_url_replaces_what_the_first_one_sent(server: Server, tmp_path: Path) -> None:
    one = server.publish("one/model.pth", content=OLD, etag='"1"')
    two = server.publish("two/model.pth", content=NEW, etag='"1"')
    assert ensure("mine", _source(one), tmp_path).sha256 == sha256(OLD)
    server.cut = [50000, *[0] * transport.TRIES]
    with pytest.raises(ModelError):
        ensure("mine", _source(two), tmp_path)
    # Until it is there, the first stays.
    assert ensure("mine", _source(one), tmp_path).sha256 == sha256(OLD)
    assert ensure("mine", _source(two), tmp_path).sha256 == sha256(NEW)
    # A sum that is given later and is the file's needs no network.
    server.asked.clear()
    assert ensure("mine", _source(one, sha256(NEW)), tmp_path).sha256 == sha256(NEW)
    assert not server.asked


def test_files_placed_by_hand(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    path = place(tmp_path, "mine", "model.pth")
    path.parent.mkdir()
    path.write_bytes(NEW)
    with pytest.raises(ModelError, match=r"has SHA-256 .*, needed is .*; place the right file"):
        ensure("mine", _source(url, sha256(OLD)), tmp_path)
    record = ensure("mine", _source(url), tmp_path)
    assert (record.sha256, record.placed, record.path) == (sha256(NEW), True, path)
    assert ensure("mine", _source(url), tmp_path) == record
    other = _source(f"{server.url}/two/model.pth")
    with pytest.raises(ModelError, match=r"model\.pth was placed there for another source than"):
        ensure("mine", other, tmp_path)
    path.write_bytes(OLD)
    assert ensure("mine", other, tmp_path).sha256 == sha256(OLD)
    record_path(tmp_path, "mine").unlink()
    caplog.clear()
    ensure("mine", _source(url, sha256(OLD)), tmp_path)
    assert caplog.messages == [f"mine: found {path}, SHA-256 {sha256(OLD)} (as expected)"]
    assert not server.asked


def test_offline_stops_urls_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.publish("model.pth", content=OLD, etag='"1"')
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as info:
        ensure("mine", _source(url), tmp_path)
    assert str(info.value) == (
        f"model mine: its weights ({url}, file model.pth) are not on this machine and could not be "
        f"fetched (HF_HUB_OFFLINE is set); run `vitfeat fetch mine` where there is a network, or "
        f"place the file at {tmp_path / 'mine' / 'model.pth'}"
    )
    assert not server.asked


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"there is no file at http.*/model\.pth \(HTTP 404 Not Found\)"),
        (403, r"could not be fetched \(HTTP 403 Forbidden\); .* place the file at"),
        (503, r"could not be fetched \(HTTP 503 Service Unavailable\)"),
    ],
)
def test_what_a_server_refuses(server: Server, tmp_path: Path, status: int, message: str) -> None:
    url = server.publish("model.pth", content=OLD, status=status)
    with pytest.raises(ModelError, match=message):
        ensure("mine", _source(url), tmp_path)
    assert not record_path(tmp_path, "mine").exists()


def test_two_processes_fetch_a_url_once(hub: Hub) -> None:
    url = hub.server.publish("model.pth", content=OLD, etag='"1"')
    hub.server.stall = 1.0
    processes = [hub.start({"url": url}) for _ in range(2)]
    runs = [hub.end(process) for process in processes]
    assert [run.error for run in runs] == [None, None]
    assert hub.content() == OLD
    # The one that waited took the other's record.
    assert not hub.record().placed
    assert len(hub.server.bodies()) == 1
