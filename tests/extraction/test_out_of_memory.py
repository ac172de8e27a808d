"""A GPU whose memory holds only so many images, played by the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.extraction.pictures_folder import UNANNOTATED
from vitfeat.data.index import Index
from vitfeat.errors import ModelError
from vitfeat.extraction.buffers import Unit
from vitfeat.extraction.job import Job
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.store.info import describe
from vitfeat.store.opening import open_store

SETTINGS = Settings(taps=UNANNOTATED, batch_size=22, device="cpu", threads=1, workers=0)


@pytest.fixture
def as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs take the way of a GPU: whole batches, staged, summaries by PyTorch."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(Job, "on_gpu", property(lambda _: True))
    allocate = Unit.allocate.__func__  # type: ignore[attr-defined]
    unpinned = classmethod(lambda cls, *sizes, pinned: allocate(cls, *sizes, pinned=False))
    monkeypatch.setattr(Unit, "allocate", unpinned)


def _holding(backbone: Backbone, most: int, pushed: list[int]) -> Backbone:
    def forward(images: Tensor) -> Any:
        # The probe's two images of noise are no batch.
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        result = backbone.forward(images)
        pushed.append(len(images))
        return result

    return replace(backbone, forward=forward)


@pytest.mark.usefixtures("as_gpu")
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    backbone: Backbone, index: Index, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extract(backbone, index, folder, tmp_path / "whole.zarr", SETTINGS)
    pushed: list[int] = []
    done: list[int] = []
    extract(
        _holding(backbone, 6, pushed),
        index,
        folder,
        tmp_path / "halved.zarr",
        SETTINGS,
        on_images=done.append,
    )
    whole, halved = open_store(tmp_path / "whole.zarr"), open_store(tmp_path / "halved.zarr")
    for name in whole.array_names:
        np.testing.assert_allclose(
            np.asarray(halved[name][:], np.float32),
            np.asarray(whole[name][:], np.float32),
            rtol=2e-3,
            atol=1e-5,
            err_msg=name,
        )
    n = len(index)
    # A block is 16 images: 16, 8 and then 4 at a time; what fitted is never pushed again.
    assert sum(done) == halved.attributes["forward_images"] == n
    assert [size for size in pushed if size != 2] == [4] * 5
    said = [line for line in caplog.messages if "do not fit" in line]
    assert [line.split()[0] for line in said] == ["16", "8"]
    assert [note for note in halved.attributes["notes"] if "do not fit" in note] == said
    assert any(said[1] in line for line in describe(halved))
    assert not any("do not fit" in note for note in whole.attributes["notes"])


@pytest.mark.usefixtures("as_gpu")
def test_a_memory_too_small_for_one_image_is_said_in_one_line(
    backbone: Backbone, index: Index, folder: Path, tmp_path: Path
) -> None:
    full = False

    def forward(images: Tensor) -> Any:
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backbone.forward(images)

    def filled(_: int) -> None:
        nonlocal full
        full = True

    small = SETTINGS.but(batch_size=4)
    with pytest.raises(ModelError, match="not even one image fits") as error:
        extract(
            replace(backbone, forward=forward),
            index,
            folder,
            tmp_path / "m.zarr",
            small,
            on_images=filled,
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m.zarr").exists()
    # What was whole before is not pushed again.
    full = False
    extract(backbone, index, folder, tmp_path / "m.zarr", small)
