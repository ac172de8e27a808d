"""What a person types: an extraction into a store behind S3, and commands that read it there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import numpy as np
import pytest

import vitfeat
from tests.extraction.pictures_folder import N_IMAGES
from tests.store.filled import files
from tests.store.s3 import BUCKET, S3, CuttingProxy, objects_below, point_to
from vitfeat.cli import main
from vitfeat.data.index import Index
from vitfeat.store import files as remote
from vitfeat.store.paths import WORKPLACE

ENTRY = {"source": "timm", "name": "test_vit", "normalisation": "half"}
# A command of a process of its own, with blocks as small as in this one.
SMALL_BLOCKS = (
    "from vitfeat.store import layout; layout._MAX_BLOCK = 8; from vitfeat.cli import main"
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.url)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


@pytest.fixture
def url(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where a test has its store; what it writes here is in a folder of its own."""
    point_to(monkeypatch, server.url)
    # Where machines of clouds have credentials; elsewhere nobody answers.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"{server.url}/nobody")
    retry = {"max_retries": 3, "retry_timeout": timedelta(seconds=5)}
    retry["backoff"] = {"init_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(remote, "RETRY", retry)
    monkeypatch.chdir(tmp_path)
    return f"s3://{BUCKET}/{tmp_path.name}/m.zarr"


@pytest.fixture
def command(index: Index, folder: Path, tmp_path: Path) -> list[str]:
    """The extraction, but for where its store goes."""
    index.write(tmp_path / "index.csv")
    return [
        *("extract", "m", "--entry", json.dumps(ENTRY), "--index", str(tmp_path / "index.csv")),
        *("--root", str(folder), "--batch-size", "4", "--workers", "0", "--threads", "1"),
        *("--device", "cpu", "--out"),
    ]


@pytest.fixture
def expected(command: list[str], url: str, tmp_path: Path) -> dict[str, bytes]:
    """Every file of the same store on a disk."""
    assert main([*command, str(tmp_path / "m.zarr")]) == 0
    return files(tmp_path / "m.zarr")


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a command that failed."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("vitfeat: error: ")] == lines[-1:]
    return lines[-1]


def test_a_store_is_extracted_looked_into_verified_and_analysed_there(
    command: list[str],
    url: str,
    expected: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, url, "--manifest", "copy.json"]) == 0
    there = objects_below(url.rpartition("/")[0])
    assert {k.removeprefix("m.zarr/"): v for k, v in there.items() if k != "m.json"} == expected
    assert there["m.json"] == (tmp_path / "m.json").read_bytes()
    assert Path("copy.json").read_bytes() == there["m.json"]
    local, store = vitfeat.open(tmp_path / "m.zarr"), vitfeat.open(url)
    np.testing.assert_array_equal(store["spatial"][:], local["spatial"][:])
    capsys.readouterr()
    assert main(["info", url]) == 0
    assert f"store        {url}" in capsys.readouterr().out
    assert main(["verify", url]) == 0
    assert f"{url}: whole, {N_IMAGES} images" in capsys.readouterr().out
    for place, table in ((url, "there.csv"), (str(tmp_path / "m.zarr"), "here.csv")):
        assert (
            main(["run", "clustering", place, "--seeds", "1", "--n-init", "1", "--out", table]) == 0
        )
    assert Path("there.csv").read_bytes() == Path("here.csv").read_bytes()
    assert Path("there.csv").read_text().count("\n") > 2
    # Nothing of the work stays here, and a second run has nothing to do.
    assert not [*WORKPLACE.rglob("*.partial")]
    assert main([*command, url]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_command_killed_in_mid_upload_is_resumed_by_the_same_command(
    command: list[str],
    url: str,
    server: S3,
    expected: dict[str, bytes],
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = [sys.executable, "-c", f"{SMALL_BLOCKS}; raise SystemExit(main())", *command, url]
    start = len(server.requests)
    process = subprocess.Popen(
        line, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        if any("/spatial/c." in key for _, key in server.requests[start:]):
            process.kill()
        time.sleep(0.001)
    assert process.returncode == -9
    assert "zarr.json" not in objects_below(url)
    assert main(["info", url]) == 1
    assert "the extraction has not finished" in _error(capsys)
    assert main([*command, url]) == 0
    assert "resuming an interrupted store" in capsys.readouterr().err
    assert objects_below(url) == expected


def test_a_network_that_breaks_in_mid_write_and_a_list_that_lags_cost_nothing(
    command: list[str],
    url: str,
    server: S3,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = CuttingProxy(server, after=3000, times=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    server.is_lagging = True
    try:
        assert main([*command, url]) == 0
        assert proxy.left == 0
    finally:
        server.is_lagging = False
        proxy.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert objects_below(url) == expected


def test_a_network_that_stays_broken_is_one_line_and_the_same_command_goes_on(
    command: list[str],
    url: str,
    server: S3,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy = CuttingProxy(server, after=3000, times=10**6)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    capsys.readouterr()
    try:
        assert main([*command, url]) == 1
    finally:
        proxy.stop()
    assert f"{url}: could not be uploaded" in (line := _error(capsys))
    assert "run the extraction again to go on" in line
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert "m.json" not in objects_below(url.rpartition("/")[0])
    assert main([*command, url]) == 0
    assert "resuming an interrupted store" in capsys.readouterr().err
    assert objects_below(url) == expected


@pytest.mark.parametrize(
    ("changes", "bucket", "said"),
    [
        ({}, "nobodys", "there is no such bucket"),
        ({"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None}, BUCKET, "no credentials; set"),
        ({"AWS_SECRET_ACCESS_KEY": None}, BUCKET, "no credentials; set AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, BUCKET, "cannot be"),
    ],
    ids=["wrong-bucket", "no-credentials", "half-of-them", "no-server"],
)
def test_a_place_that_cannot_be_written_or_read_is_one_line(
    command: list[str],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str | None],
    bucket: str,
    said: str,
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    place = url.replace(BUCKET, bucket)
    for line in (
        [*command, place],
        ["info", place],
        ["run", "clustering", place, "--out", "t.csv"],
    ):
        assert main(line) == 1
        assert said in _error(capsys)
    assert not Path("t.csv").exists()
