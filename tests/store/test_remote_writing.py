"""Stores that are written behind S3: shard by shard, whole or not there, whatever breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
import pytest
from obstore.store import S3Store, from_url

import vitfeat
from tests.store.filled import BLOCK, N_IMAGES, Content, files
from tests.store.s3 import BUCKET, S3, CuttingProxy, SlowProxy, objects_below, point_to
from vitfeat.errors import StoreError
from vitfeat.store import files as remote
from vitfeat.store import uploading
from vitfeat.store.files import RemoteFiles
from vitfeat.store.layout import _SHARD_BYTES
from vitfeat.store.paths import WORKPLACE, Url, claim_path, work_path
from vitfeat.store.uploading import hold, release
from vitfeat.store.verify import verify
from vitfeat.store.writer import StoreWriter, open_writer, write_manifest

CONTENT = Content(taps=("cls", "spatial", "attention"), kept={"attention": (0, 5, 9, 17)})
N_BLOCKS = -(-N_IMAGES // BLOCK)


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.url)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _pointed(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_to(monkeypatch, server.url)
    monkeypatch.chdir(tmp_path)
    retry = {
        "max_retries": 3,
        "retry_timeout": timedelta(seconds=5),
        "backoff": {"init_backoff": timedelta(milliseconds=5), "base": 2},
    }
    monkeypatch.setattr(remote, "RETRY", retry)


@pytest.fixture
def url(tmp_path: Path) -> Url:
    return Url(f"s3://{BUCKET}/{tmp_path.name}/m.zarr")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the same store on a disk."""
    path = tmp_path_factory.mktemp("local") / "m.zarr"
    CONTENT.write(path)
    return files(path)


def _writing(
    place: Url, content: Content = CONTENT, **options: Any
) -> AbstractContextManager[StoreWriter]:
    layout = content.layout
    return open_writer(
        place, layout, content.geometry, content.rows, content.request, "m", **options
    )


def _write(writer: StoreWriter, block: int) -> None:
    rows = CONTENT.layout.rows(block)
    writer.write_block(block, CONTENT.part(rows), forward_images=len(rows))


def _uploads(asked: list[tuple[str, str]]) -> list[str]:
    """Return the shards that were uploaded."""
    names = [key.partition(".zarr/")[2] for method, key in asked if method == "PUT"]
    return [name for name in names if name.partition("/c.")[0] in CONTENT.taps]


def _line(raised: pytest.ExceptionInfo[StoreError]) -> str:
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("span", [BLOCK, 2 * BLOCK])
def test_a_store_written_there_has_the_bytes_of_one_on_a_disk(
    url: Url, tmp_path: Path, span: int
) -> None:
    content = Content(taps=CONTENT.taps, kept=CONTENT.kept, span=span)
    content.write(tmp_path / "m.zarr")
    _, sealed = content.write(url)
    assert objects_below(str(url)) == files(tmp_path / "m.zarr")
    write_manifest(url, sealed or {})
    assert json.loads(objects_below(str(url.parent))["m.json"]) == sealed
    assert verify(url)[1] == []
    # Neither a claim nor anything of the work is left.
    assert not any(name.endswith(".writing") for name in objects_below(str(url.parent)))
    left = [file.name for file in WORKPLACE.rglob("*") if file.is_file()]
    assert left in ([], [".m.zarr.lock"])


def test_readers_find_nothing_until_all_is_there(url: Url, expected: dict[str, bytes]) -> None:
    with _writing(url) as writer:
        for block in writer.missing_blocks():
            _write(writer, block)
            with pytest.raises(StoreError, match="the extraction has not finished"):
                vitfeat.open(url)
            # Shards are there and no longer here.
            assert f"cls/c.{block}.0.0" in objects_below(str(url))
            assert not [*WORKPLACE.rglob("c.[0-9]*.0.0")]
        writer.seal()
    assert vitfeat.open(url).n_images == N_IMAGES
    assert objects_below(str(url)) == expected


def test_what_makes_it_a_store_is_uploaded_last(url: Url, server: S3) -> None:
    with server.counted() as asked:
        CONTENT.write(url)
    puts = [key.rpartition(".zarr/")[2] for method, key in asked if method == "PUT"]
    assert puts[-1] == "zarr.json"
    assert puts[0].endswith("m.zarr.writing")
    # Each once, and of each store one list.
    assert len(set(puts)) == len(puts)


def test_an_interrupted_upload_is_resumed_and_nothing_made_again(
    url: Url, server: S3, expected: dict[str, bytes]
) -> None:
    with _writing(url) as writer:
        _write(writer, 1)
    with server.counted() as asked, _writing(url) as writer:
        assert writer.missing_blocks() == [0, 2]
        assert writer.damaged == []
        for block in (2, 0):
            _write(writer, block)
        writer.seal()
    assert "cls/c.1.0.0" not in _uploads(asked)
    assert {"cls/c.0.0.0", "cls/c.2.0.0"} <= set(_uploads(asked))
    assert objects_below(str(url)) == expected


_SCRIPT = """
import sys
from datetime import timedelta
from tests.store.test_remote_writing import CONTENT
from vitfeat.store.paths import Url
CONTENT.write(Url(sys.argv[1]))
"""


@pytest.mark.parametrize("after", [1, 2, 4, 8, 14, 19, 24])
def test_a_process_killed_at_any_request_is_gone_on_with(
    url: Url, server: S3, expected: dict[str, bytes], root: Path, after: int
) -> None:
    start = len(server.requests)
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(url)],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    while len(server.requests) < start + after and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = objects_below(str(url))
    if "zarr.json" in before:
        assert before == expected
        return
    with server.counted() as asked:
        CONTENT.write(url)
    assert objects_below(str(url)) == expected
    # What was on its way when the process died may be uploaded twice, and nothing else.
    again = set(_uploads(asked)) & set(before)
    assert len(again) <= 4


@pytest.mark.parametrize("after", [100, 3000])
def test_connections_cut_in_mid_write_are_made_again(
    url: Url,
    server: S3,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    proxy = CuttingProxy(server, after=after, times=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        CONTENT.write(url)
        assert proxy.left == 0
    finally:
        proxy.stop()
    assert_same(server, monkeypatch, url, expected)


def assert_same(
    server: S3, monkeypatch: pytest.MonkeyPatch, url: Url, expected: dict[str, bytes]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert objects_below(str(url)) == expected


def test_a_network_that_stays_broken_is_one_line_and_can_be_gone_on_with(
    url: Url, server: S3, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _writing(url) as writer:
        _write(writer, 0)
    proxy = CuttingProxy(server, after=1500, times=10**6)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        with pytest.raises(StoreError, match="could not be uploaded") as raised:
            CONTENT.write(url)
        assert "run the extraction again to go on" in _line(raised)
    finally:
        proxy.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    with server.counted() as asked:
        missing, _ = CONTENT.write(url)
    # The block that was pushed before the network broke is not pushed again.
    assert missing == [2]
    assert "cls/c.0.0.0" not in _uploads(asked)
    assert objects_below(str(url)) == expected


def test_a_slow_line_is_waited_for(
    server: S3, url: Url, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A large upload and its download take longer than a host may be silent."""
    monkeypatch.setattr(remote, "SILENCE", timedelta(seconds=0.4))
    monkeypatch.setattr(remote, "SMALL_UPLOAD", 2**10)
    proxy = SlowProxy(server, rate=2**18)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    content = np.random.default_rng(0).bytes(2**18)
    try:
        RemoteFiles(url).put("c.0", content)
        assert RemoteFiles(url).read("c.0") == content
    finally:
        proxy.stop()


def test_the_time_of_a_request_is_that_of_the_largest_shards_on_a_slow_line(url: Url) -> None:
    """obstore's own, 30 seconds, are 2 MiB/s."""
    rate = 10**6 / 8
    n_bytes = uploading._AT_ONCE * _SHARD_BYTES
    assert n_bytes / rate < remote.LONGEST.total_seconds()
    assert uploading._AT_ONCE * remote.SMALL_UPLOAD / rate < remote.SILENCE.total_seconds()
    files = RemoteFiles(url)
    for objects in (files._objects, files._large_uploads):
        assert isinstance(objects, S3Store)
        options: Any = objects.client_options
        assert options["timeout"] == f"{remote.LONGEST // timedelta(minutes=1)}m"


def test_a_host_that_falls_silent_is_given_up(
    server: S3, url: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    CONTENT.write(url)
    monkeypatch.setattr(remote, "SILENCE", timedelta(seconds=0.2))
    monkeypatch.setattr(remote, "RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    proxy = SlowProxy(server, rate=10**7, stops_after=400)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        with pytest.raises(StoreError, match="cannot be read") as raised:
            vitfeat.open(url)
        _line(raised)
    finally:
        proxy.stop()


def test_a_busy_host_is_asked_again(url: Url, server: S3, expected: dict[str, bytes]) -> None:
    with _writing(url) as writer:
        for block in range(N_BLOCKS):
            server.busy = 2
            _write(writer, block)
        server.busy = 2
        writer.seal()
    assert objects_below(str(url)) == expected


def test_a_listing_that_lags_hides_nothing(
    url: Url, server: S3, expected: dict[str, bytes]
) -> None:
    server.is_lagging = True
    try:
        CONTENT.write(url)
    finally:
        server.is_lagging = False
    assert objects_below(str(url)) == expected


@pytest.mark.parametrize("lagging", [False, True])
def test_an_uploaded_shard_that_is_gone_is_made_anew(
    url: Url, server: S3, expected: dict[str, bytes], lagging: bool
) -> None:
    with _writing(url) as writer:
        for block in range(N_BLOCKS):
            _write(writer, block)
        obstore.delete(from_url(str(url), client_options={"allow_http": True}), "cls/c.1.0.0")
        server.is_lagging = lagging
        try:
            with pytest.raises(StoreError, match=r"1 shard \(cls/c\.1\.0\.0.*not there any more"):
                writer.seal()
        finally:
            server.is_lagging = False
    assert "zarr.json" not in objects_below(str(url))
    missing, _ = CONTENT.write(url)
    assert missing == [1]
    assert objects_below(str(url)) == expected


def test_a_second_writer_is_refused_and_told_who_writes(
    url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    with _writing(url) as writer:
        _write(writer, 0)
        (tmp_path / "elsewhere").mkdir()
        with monkeypatch.context() as there:
            there.chdir(tmp_path / "elsewhere")
            with pytest.raises(StoreError, match="another job writes this store") as raised:
                CONTENT.write(url)
        said = _line(raised)
        assert str(tmp_path / WORKPLACE) in said
        assert f"remove {url}.writing" in said
    CONTENT.write(url)
    assert objects_below(str(url)) == expected


def test_of_several_that_claim_at_once_one_has_it(url: Url, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def claim(number: int) -> None:
        try:
            hold(url, tmp_path / str(number) / "m.zarr")
            outcomes.append("has it")
        except StoreError:
            outcomes.append("refused")

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["has it", *["refused"] * 7]


def test_several_jobs_of_one_folder_fill_one_store(
    url: Url, server: S3, expected: dict[str, bytes]
) -> None:
    layout = CONTENT.layout
    with server.counted() as asked:
        for number in (2, 1):
            with open_writer(
                *(url, layout, CONTENT.geometry, CONTENT.rows, CONTENT.request, "m"),
                part=(number, 2),
            ) as writer:
                for block in writer.missing_blocks():
                    _write(writer, block)
        assert "zarr.json" not in objects_below(str(url))
        missing, _ = CONTENT.write(url)
    assert missing == []
    uploaded = _uploads(asked)
    assert len(uploaded) == len(set(uploaded))
    assert objects_below(str(url)) == expected


def test_a_job_that_comes_during_the_seal_waits_and_breaks_nothing(
    url: Url, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    """The claim behind the URL is given up before the work is over."""
    writers: list[StoreWriter | None] = []

    def is_finished() -> bool:
        vitfeat.open(url)
        release(url, work_path(url))
        return True

    def come() -> None:
        with _writing(url, is_finished=is_finished) as writer:
            writers.append(writer)

    second = threading.Thread(target=come)

    def release_late(url: Url, path: Path) -> None:
        second.start()
        # Time to break something, were it not to wait.
        second.join(0.3)
        release(url, path)

    monkeypatch.setattr(uploading, "release", release_late)
    CONTENT.write(url)
    second.join()
    assert writers == [None]
    assert objects_below(str(url)) == expected
    assert claim_path(url).name not in objects_below(str(url.parent))


def test_what_is_no_store_is_refused_and_stays(url: Url) -> None:
    objects = from_url(str(url), client_options={"allow_http": True})
    obstore.put(objects, "thesis/chapter-1.txt", b"words")
    with pytest.raises(
        StoreError, match=r"no store stands there \(thesis/chapter-1\.txt"
    ) as raised:
        CONTENT.write(url)
    _line(raised)
    assert objects_below(str(url.parent)) == {"m.zarr/thesis/chapter-1.txt": b"words"}


def test_a_store_that_is_replaced_is_none_from_the_start_and_leaves_nothing(
    url: Url, expected: dict[str, bytes]
) -> None:
    other = Content(taps=("cls", "registers", "residual_norms"), seed=3)
    other.write(url)
    held = vitfeat.open(url)
    with _writing(url) as writer:
        with pytest.raises(StoreError, match="the extraction has not finished"):
            vitfeat.open(url)
        for block in range(N_BLOCKS):
            _write(writer, block)
        writer.seal()
    assert objects_below(str(url)) == expected
    # Whoever had it open is told that it is another now.
    with pytest.raises(StoreError):
        held["registers"][:]


def test_uploads_under_a_claim_that_was_removed_are_not_trusted(
    url: Url, expected: dict[str, bytes]
) -> None:
    with _writing(url) as writer:
        _write(writer, 0)
    beside = from_url(str(url.parent), client_options={"allow_http": True})
    obstore.delete(beside, [f"m.zarr/{name}" for name in objects_below(str(url))])
    obstore.delete(beside, "m.zarr.writing")
    missing, _ = CONTENT.write(url)
    assert missing == [0, 1, 2]
    assert objects_below(str(url)) == expected


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (("AWS_REGION", "us-east-1"), "nobodys", "there is no such bucket"),
        (("AWS_ACCESS_KEY_ID", None), BUCKET, "no credentials; set AWS_ACCESS_KEY_ID"),
        (("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), BUCKET, "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    server: S3,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str | None],
    where: str,
    said: str,
) -> None:
    # Where machines of clouds have credentials; elsewhere nobody answers.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"{server.url}/nobody")
    name, value = change
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=said) as raised:
        CONTENT.write(Url(f"s3://{where}/m.zarr"))
    _line(raised)


def test_numbers_are_those_that_were_written(url: Url) -> None:
    CONTENT.write(url)
    store: Any = vitfeat.open(url)
    for name, values in CONTENT.arrays().items():
        np.testing.assert_array_equal(store[name][:], values)
