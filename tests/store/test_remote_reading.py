"""Stores behind S3 and web servers: everything that a store on a disk gives, in few requests."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import flask
import numpy as np
import obstore
import pytest
from obstore.store import from_url
from werkzeug.serving import make_server

import vitfeat
from tests.store.filled import Content
from tests.store.s3 import BUCKET, S3, point_to, upload
from vitfeat.cli import main
from vitfeat.errors import StoreError
from vitfeat.store import files as remote
from vitfeat.store.info import describe
from vitfeat.store.verify import verify

URL = f"s3://{BUCKET}/animals/m.zarr"
FIRST = "class 0/ï000.png"


@pytest.fixture(scope="module")
def server(written: Path) -> Iterator[S3]:
    """One that has the store, as nobody changes it."""
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.url)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        upload(written, URL)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _pointed(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, server.url)
    retry = {"max_retries": 1, "retry_timeout": timedelta(seconds=2)}
    monkeypatch.setattr(remote, "RETRY", retry)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> str:
    """A copy of the store, for a test to damage."""
    url = f"s3://{BUCKET}/{tmp_path.name}/m.zarr"
    upload(written, url)
    return url


def _put(url: str, name: str, content: bytes) -> None:
    obstore.put(from_url(url, client_options={"allow_http": True}), name, content)


def _get(url: str, name: str) -> bytes:
    objects = from_url(url, client_options={"allow_http": True})
    return obstore.get(objects, name).bytes().to_bytes()


def test_a_remote_store_gives_what_the_same_store_on_a_disk_gives(written: Path) -> None:
    here, there = vitfeat.open(written), vitfeat.open(URL)
    assert list(there) == list(here)
    for name in (*here, *here.coordinate_names):
        np.testing.assert_array_equal(there.array(name)[:], here.array(name)[:])
    np.testing.assert_array_equal(there["cls"][[21, 3, 8], -1], here["cls"][[21, 3, 8], -1])
    assert there.to_xarray().equals(here.to_xarray())
    said, expected = list(describe(there))[1:], list(describe(here))[1:]
    assert said == expected
    ours, theirs = (s.torch_dataset("cls")[5] for s in (there, here))
    assert ours["image_id"] == theirs["image_id"]
    assert (ours["cls"] == theirs["cls"]).all()


def test_one_layer_of_one_image_takes_three_requests_at_most(server: S3) -> None:
    with server.counted() as opening:
        store = vitfeat.open(URL)
    with server.counted() as by_row:
        store["cls"][13, -1]
    with server.counted() as by_id:
        store["spatial"][FIRST, 1]
    with server.counted() as by_name:
        store.sel(image=FIRST, layer="last")["attention"].to_numpy()
    assert len(by_row) == len(by_id) == len(by_name) == 2
    # Metadata, coordinates, and the manifest that is not there: not one a shard, and no listing.
    coordinates = sum(not n.endswith("zarr.json") for n in store.attributes["sealed"]["files"])
    assert len(opening) == 2 + coordinates
    assert {method for method, _ in opening + by_row + by_id + by_name} == {"GET"}


def test_opening_takes_as_many_requests_for_a_hundred_shards_as_for_three(
    server: S3, tmp_path: Path
) -> None:
    counts = []
    for n_images in (3, 100):
        Content(taps=("cls",), n_images=n_images, block=1, span=1).write(
            tmp_path / f"{n_images}.zarr"
        )
        url = f"s3://{BUCKET}/shards/{n_images}.zarr"
        upload(tmp_path / f"{n_images}.zarr", url)
        with server.counted() as asked:
            vitfeat.open(url)
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_a_url_may_come_as_a_path_and_survives_pickling(written: Path) -> None:
    store = vitfeat.open(Path(URL))
    assert str(store.path) == URL
    again = pickle.loads(pickle.dumps(store))
    assert str(again.path) == URL
    dataset = pickle.loads(pickle.dumps(store.torch_dataset("cls")))
    expected = vitfeat.open(written)["cls"][4, -1]
    np.testing.assert_array_equal(dataset[4]["cls"].numpy(), expected)


def test_commands_take_urls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", URL]) == 0
    assert main(["info", URL]) == 0
    said = capsys.readouterr().out
    assert f"{URL}: whole, 22 images, every checksum right" in said
    assert f"store        {URL}" in said


def test_a_forked_process_is_told_to_be_started_anew() -> None:
    """Requests are made by threads, which a fork leaves behind: they would wait for ever."""
    store = vitfeat.open(URL)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            store["cls"][0]
        except StoreError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 1000).decode()
    assert "forked" in said
    assert "multiprocessing_context='spawn'" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["label/c.0", "seal/shards/c.0.0"])
def test_a_coordinate_that_is_another_or_missing_is_told_on_opening(copy: str, name: str) -> None:
    content = bytearray(_get(copy, name))
    content[-1] ^= 1
    _put(copy, name, bytes(content))
    with pytest.raises(StoreError, match=f"{name} is not as it was when the store was sealed"):
        vitfeat.open(copy)
    obstore.delete(from_url(copy, client_options={"allow_http": True}), name)
    with pytest.raises(StoreError, match=f"{name} is missing"):
        vitfeat.open(copy)


def test_changed_metadata_are_told(copy: str) -> None:
    _put(copy, "cls/zarr.json", _get(copy, "cls/zarr.json").replace(b"CLS", b"XLS"))
    with pytest.raises(StoreError, match=r"cls/zarr.json is not as it was"):
        verify(copy)
    _put(copy, "zarr.json", _get(copy, "zarr.json").replace(b'"vit"', b'"vat"'))
    with pytest.raises(StoreError, match="metadata"):
        vitfeat.open(copy)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda shard: shard[:-1], r"cls/c.1.0.0 has [\d,]+ bytes, [\d,]+ when it was sealed"),
        (lambda shard: shard[:9], "cls/c.1.0.0 is shorter than when it was sealed"),
        (lambda shard: shard + b"x", r"cls/c.1.0.0 has [\d,]+ bytes, [\d,]+ when it was sealed"),
        (lambda shard: b"", r"cls/c.1.0.0 (is shorter|has 0 bytes)"),
        (lambda shard: bytes([shard[0] ^ 1]) + shard[1:], "the checksum of a chunk"),
        (lambda shard: shard[:-3] + bytes([shard[-3] ^ 1]) + shard[-2:], "the checksum of the ind"),
    ],
)
def test_a_damaged_shard_is_told_when_it_is_read(copy: str, damage: object, said: str) -> None:
    name = "cls/c.1.0.0"
    _put(copy, name, damage(_get(copy, name)))  # type: ignore[operator]
    store = vitfeat.open(copy)
    np.testing.assert_array_equal(store["cls"][:8], vitfeat.open(URL)["cls"][:8])
    with pytest.raises(StoreError, match=said) as raised:
        store["cls"][:]
    assert "\n" not in str(raised.value)
    assert len(verify(copy)[1]) == 1


def test_a_missing_shard_is_told_when_it_is_read(copy: str) -> None:
    obstore.delete(from_url(copy, client_options={"allow_http": True}), "cls/c.2.0.0")
    with pytest.raises(StoreError, match="2 is missing"):
        vitfeat.open(copy)["cls"][20]


def test_a_manifest_of_another_store_is_told(copy: str) -> None:
    _put(copy.rpartition("/")[0], "m.json", b'{"fingerprint": "00"}')
    with pytest.raises(StoreError, match=r"sealed for other settings than its manifest m\.json"):
        vitfeat.open(copy)


def _line(url: str) -> str:
    with pytest.raises(StoreError) as raised:
        vitfeat.open(url)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_not_there_is_told_in_one_line() -> None:
    assert "no such store" in _line(f"s3://{BUCKET}/animals/none.zarr")
    assert "there is no such bucket" in _line("s3://nobodys/m.zarr")


def test_missing_credentials_are_told_in_one_line(
    server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Where machines of clouds have theirs; elsewhere nobody answers.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"{server.url}/nobody")
    assert "no credentials; set AWS_ACCESS_KEY_ID" in _line(URL)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert "access denied" in _line(URL)


def test_a_server_that_does_not_answer_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "cannot be read" in _line(URL)


def test_an_installation_without_obstore_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    assert 'pip install "vitfeat[remote]"' in _line(URL)


def test_a_plain_web_server_of_ranges_will_do(written: Path) -> None:
    app = flask.Flask("files")

    @app.get("/<path:name>")
    def _file(name: str) -> flask.Response:
        return flask.send_from_directory(written.parent, name, conditional=True)

    web = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        store = vitfeat.open(f"http://127.0.0.1:{web.port}/m.zarr")
        np.testing.assert_array_equal(store["cls"][:], vitfeat.open(written)["cls"][:])
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def test_a_web_server_that_ignores_ranges_is_told(written: Path, tmp_path: Path) -> None:
    """Taken for the part that was asked for, the start of a file would be wrong numbers."""
    shutil.copytree(written, tmp_path / "m.zarr")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        store = vitfeat.open(f"http://127.0.0.1:{web.server_port}/m.zarr")
        with pytest.raises(StoreError, match="gives files whole only") as raised:
            store["cls"][0]
        assert "\n" not in str(raised.value)
    finally:
        web.shutdown()
        thread.join()
        web.server_close()
