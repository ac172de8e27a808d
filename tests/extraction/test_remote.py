"""Extraction into a store behind S3, end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.extraction.pictures_folder import N_IMAGES
from tests.store.filled import files
from tests.store.s3 import BUCKET, S3, objects_below, point_to
from vitfeat.data.index import Index
from vitfeat.errors import StoreError
from vitfeat.extraction import run
from vitfeat.extraction.job import Job
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.store.paths import WORKPLACE, Url, claim_path, partial_path, work_path

ASKED = Settings(taps=("cls", "spatial"), batch_size=5, device="cpu", threads=2, workers=0)


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.url)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


@pytest.fixture
def url(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Url:
    point_to(monkeypatch, server.url)
    monkeypatch.chdir(tmp_path)
    return Url(f"s3://{BUCKET}/{tmp_path.name}/m.zarr")


def test_an_extraction_there_is_the_one_on_a_disk(
    backbone: Backbone,
    index: Index,
    folder: Path,
    url: Url,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = extract(backbone, index, folder, tmp_path / "m.zarr", ASKED)
    there = extract(backbone, index, folder, url, ASKED)
    assert there == here
    assert objects_below(str(url)) == files(tmp_path / "m.zarr")
    caplog.clear()
    assert extract(backbone, index, folder, url, ASKED) == here
    assert caplog.messages == [
        f"{url}: already there, whole and from these settings: nothing to do"
    ]


def test_what_was_pushed_before_an_interruption_is_not_pushed_again(
    backbone: Backbone, index: Index, folder: Path, url: Url, tmp_path: Path
) -> None:
    extract(backbone, index, folder, tmp_path / "m.zarr", ASKED)

    class StoppedError(Exception):
        pass

    def stop(n_images: int) -> None:
        nonlocal pushed
        pushed += n_images
        if pushed > 16:
            raise StoppedError

    pushed = 0
    with pytest.raises(StoppedError):
        extract(backbone, index, folder, url, ASKED, on_images=stop)
    counts: list[int] = []
    extract(backbone, index, folder, url, ASKED, on_images=counts.append)
    assert counts[0] >= 8
    assert sum(counts) == N_IMAGES
    assert objects_below(str(url)) == files(tmp_path / "m.zarr")


def test_a_store_from_other_settings_is_replaced_only_where_asked(
    backbone: Backbone, index: Index, folder: Path, url: Url, tmp_path: Path
) -> None:
    extract(backbone, index, folder, url, ASKED)
    before = objects_below(str(url))
    other = ASKED.but(layers=["last"], taps=("cls",))
    other = other.but(dtype="float32")
    with pytest.raises(StoreError, match="a store from other settings stands there"):
        extract(backbone, index, folder, url, other)
    assert objects_below(str(url)) == before
    extract(backbone, index, folder, url, other.but(replace=True))
    extract(backbone, index, folder, tmp_path / "m.zarr", other)
    assert objects_below(str(url)) == files(tmp_path / "m.zarr")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["from here", "from another folder"])
def test_a_job_that_looked_just_before_the_sealing_leaves_the_store_as_it_is(
    backbone: Backbone,
    index: Index,
    folder: Path,
    url: Url,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    probe, sealed = run.probe, dict[str, bytes]()

    def late(job: Job) -> None:
        """Let another job seal the store behind the look of this one."""
        probe(job)
        monkeypatch.setattr(run, "probe", probe)
        with monkeypatch.context() as patch:
            if elsewhere:
                (tmp_path / "elsewhere").mkdir()
                patch.chdir(tmp_path / "elsewhere")
            extract(backbone, index, folder, url, ASKED)
        sealed.update(objects_below(str(url.parent)))

    monkeypatch.setattr(run, "probe", late)
    extract(backbone, index, folder, url, ASKED)
    assert caplog.messages[-1] == f"{url}: another job has just finished it: nothing to do"
    assert objects_below(str(url.parent)) == sealed
    assert not partial_path(work_path(url)).exists()


def test_a_job_killed_behind_the_seal_leaves_no_claim_for_ever(
    backbone: Backbone,
    index: Index,
    folder: Path,
    url: Url,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("vitfeat.store.uploading.release", lambda *_: None)
        extract(backbone, index, folder, url, ASKED)
    assert claim_path(url).name in objects_below(str(url.parent))
    extract(backbone, index, folder, url, ASKED)
    assert claim_path(url).name not in objects_below(str(url.parent))
    assert not work_path(url).with_name("m.zarr.partial").exists()
    assert WORKPLACE.is_dir()


def test_the_work_folder_says_nothing_of_secrets(
    backbone: Backbone, index: Index, folder: Path, url: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitfeat.store.uploading.release", lambda *_: None)
    extract(backbone, index, folder, url, ASKED)
    claim = json.loads(objects_below(str(url.parent))[claim_path(url).name])
    assert set(claim) == {"claim", "host", "folder", "since"}
