from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.extraction.pictures_folder import (
    ALL,
    BLACK,
    N_IMAGES,
    Watch,
    make_backbone,
    make_index,
    plain_forward,
    seen_images,
    spoil_black_images,
)
from tests.extraction.reference_summary import reference_summary
from tests.models.shrunk import FakeAttention, FakeBlock, fake_backbone, timm_entry
from tests.store.filled import files
from vitfeat.data.index import Index
from vitfeat.device import choose_device
from vitfeat.errors import ConfigError, DataError, ModelError, StoreError
from vitfeat.extraction import run
from vitfeat.extraction.buffers import Unit
from vitfeat.extraction.pipeline import Schedule, schedule
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.store.arrays import SUMMARY_GROUP
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify
from vitfeat.store.writer import StoreWriter


class Extract:
    """An extraction of the session's images, with everything but the settings fixed."""

    def __init__(self, backbone: Backbone, index: Index, root: Path) -> None:
        self.backbone, self.index, self.root = backbone, index, root

    def __call__(self, out: Path, settings: Settings = ALL, **options: Any) -> dict[str, Any]:
        return extract(self.backbone, self.index, self.root, out, settings, **options)


@pytest.fixture
def extracting(backbone: Backbone, index: Index, folder: Path) -> Extract:
    return Extract(backbone, index, folder)


def _same_files(a: Path, b: Path) -> None:
    left, right = files(a), files(b)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


# --- The numbers ---


def _expected(truth: tuple[Tensor, Tensor], layers: list[int]) -> dict[str, Tensor]:
    tokens, attention = (t[:, layers] for t in truth)
    return {
        "cls": tokens[:, :, 0],
        "registers": tokens[:, :, 1:5],
        "spatial": tokens[:, :, 5:].unflatten(2, (4, 4)),
        "attention": attention,
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layers", ["all", "last"])
def test_stored_numbers_are_those_of_a_plain_forward(
    extracting: Extract, truth: tuple[Tensor, Tensor], tmp_path: Path, dtype: str, layers: str
) -> None:
    extracting(tmp_path / "m.zarr", ALL.but(dtype=dtype, layers=layers))
    store, damages = verify(tmp_path / "m.zarr")
    assert damages == []
    # Half a unit in the last place of float16, beside the rounding of another order of sums.
    tolerance = (
        {"rtol": 2**-10, "atol": 1e-5} if dtype == "float16" else {"rtol": 1e-4, "atol": 1e-4}
    )
    for name, values in _expected(truth, [0, 1] if layers == "all" else [1]).items():
        found = np.asarray(store[name][:])
        assert found.dtype == dtype
        assert found.shape == values.shape
        np.testing.assert_allclose(found.astype(np.float32), values.numpy(), **tolerance)


def test_float16_is_the_cast_of_float32(extracting: Extract, whole: Path, tmp_path: Path) -> None:
    extracting(tmp_path / "m.zarr", ALL.but(dtype="float32"))
    single, half = open_store(tmp_path / "m.zarr"), open_store(whole)
    for name in ("cls", "registers", "spatial", "attention"):
        cast = np.asarray(single[name][:]).astype(np.float16)
        assert np.array_equal(cast, np.asarray(half[name][:]))
    for name in single.array_names:
        if name.startswith(SUMMARY_GROUP):  # float32 in both, from the attention before its cast
            assert np.array_equal(single[name][:], half[name][:])


def test_stored_summaries_are_those_of_the_attention(
    whole: Path, truth: tuple[Tensor, Tensor]
) -> None:
    store = open_store(whole)
    for image in (0, 7, 21):
        for layer in range(2):
            expected = reference_summary(truth[1][image, layer].numpy(), 5, (4, 4))
            names = {n.removeprefix(f"{SUMMARY_GROUP}/") for n in store.array_names}
            assert set(expected) <= names
            for name, values in expected.items():
                found = np.asarray(store[f"{SUMMARY_GROUP}/{name}"][image, layer])
                np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["plain", "no-cls", "rope", "relative-bias"])
def test_every_kind_of_model(
    index: Index, folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = make_backbone(kind)
    images = seen_images(backbone, index, folder)
    tokens, attention = plain_forward(backbone, images)
    extract(backbone, index, folder, tmp_path / "m.zarr", ALL.but(dtype="float32"))
    store = open_store(tmp_path / "m.zarr")
    assert ("cls" in store) == backbone.has_cls
    assert any("has no CLS token" in line for line in caplog.messages) != backbone.has_cls
    assert "registers" not in store
    n = backbone.n_prefix
    close = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(
        store["spatial"][:], tokens[:, :, n:].unflatten(2, (4, 4)).numpy(), **close
    )
    np.testing.assert_allclose(store["attention"][:], attention.numpy(), **close)
    if n:
        np.testing.assert_allclose(store["cls"][:], tokens[:, :, 0].numpy(), **close)


def test_a_model_of_a_single_head(index: Index, folder: Path, tmp_path: Path) -> None:
    """It has no deviation over heads: neither zeros nor what stood in memory are stored."""
    args = {"depth": 1, "embed_dim": 32, "num_heads": 1}
    backbone = load_backbone(timm_entry(args=args))
    settings = ALL.but(taps=("attention_summary",))
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    store, damages = verify(tmp_path / "m.zarr")
    assert damages == []
    assert f"{SUMMARY_GROUP}/deviation_heads" not in store
    assert f"{SUMMARY_GROUP}/deviation_positions" in store


def test_none_of_the_asked_taps(index: Index, folder: Path, tmp_path: Path) -> None:
    settings = ALL.but(taps=("cls", "registers"))
    with pytest.raises(ModelError, match=r"has none of the asked taps \(cls, registers\)"):
        extract(make_backbone("no-cls"), index, folder, tmp_path / "m.zarr", settings)


# --- One pass ---


def test_every_image_goes_through_once(extracting: Extract, images: Tensor, tmp_path: Path) -> None:
    """With all taps and all layers asked for at once."""
    with Watch(extracting.backbone, images) as watch:
        manifest = extracting(tmp_path / "m.zarr")
    assert watch.rows == list(range(N_IMAGES))
    assert manifest["forward_images"] == N_IMAGES
    assert open_store(tmp_path / "m.zarr").attributes["forward_images"] == N_IMAGES


def test_a_finished_store_is_kept(
    extracting: Extract, images: Tensor, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = files(whole)
    with Watch(extracting.backbone, images) as watch:
        manifest = extracting(whole)
    assert watch.rows == []
    assert files(whole) == before
    assert manifest["fingerprint"] == open_store(whole).fingerprint
    assert "nothing to do" in caplog.messages[-1]
    # More taps than asked for serve as well.
    extracting(whole, ALL.but(taps=("cls",)))
    assert files(whole) == before


def test_rows_and_facts(whole: Path, index: Index, backbone: Backbone) -> None:
    store = open_store(whole)
    assert store.image_ids == index.image_id
    assert store.labels.tolist() == [0] * 11 + [1] * 11
    assert store.classes == {0: "class0", 1: "class1"}
    assert store.image_fingerprint == index.fingerprint
    request = store.attributes["request"]
    assert request["model"]["weights_sha256"] == backbone.weights_sha256()
    assert request["model"]["args"] == dict(backbone.entry.args)
    assert request["layers"] == store.layers == [0, 1]
    assert request["precision"] == "fp32"
    assert (store.attributes["has_cls"], store.attributes["n_registers"]) == (True, 4)


# --- The same bytes ---


@pytest.mark.parametrize(
    "changes",
    [{}, {"threads": 1}, {"threads": 3}, {"threads": 0}, {"workers": "auto"}],
    ids=str,
)
def test_runs_and_threads_do_not_change_a_byte(
    extracting: Extract, whole: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    extracting(tmp_path / "m.zarr", ALL.but(**changes))
    _same_files(tmp_path / "m.zarr", whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_byte(
    extracting: Extract, whole: Path, tmp_path: Path, workers: int
) -> None:
    extracting(tmp_path / "m.zarr", ALL.but(workers=workers))
    _same_files(tmp_path / "m.zarr", whole)


def test_images_are_counted_as_they_are_pushed(extracting: Extract, tmp_path: Path) -> None:
    """First those that an interrupted store holds, then what all threads have done together."""
    done: list[int] = []
    extracting(tmp_path / "m.zarr", ALL.but(batch_size=100), on_images=done.append)
    assert done[0] == 0
    assert sum(done) == N_IMAGES
    assert max(done) <= 8


@pytest.mark.parametrize("batch_size", [1, 3, 8, 16, 17, 100])
def test_batch_sizes_change_no_more_than_rounding(
    extracting: Extract, whole: Path, images: Tensor, tmp_path: Path, batch_size: int
) -> None:
    """Batches that divide a block, do not, and span several."""
    done: list[int] = []
    with Watch(extracting.backbone, images) as watch:
        extracting(tmp_path / "m.zarr", ALL.but(batch_size=batch_size), on_images=done.append)
    assert watch.rows == list(range(N_IMAGES))
    assert sum(done) == N_IMAGES
    assert max(done) <= batch_size
    found, expected = open_store(tmp_path / "m.zarr"), open_store(whole)
    for name in expected.array_names:
        np.testing.assert_allclose(
            np.asarray(found[name][:]).astype(np.float32),
            np.asarray(expected[name][:]).astype(np.float32),
            rtol=2e-3,
            atol=1e-4,
        )


def test_batches_may_come_from_elsewhere(extracting: Extract, whole: Path, tmp_path: Path) -> None:
    view_side = extracting.backbone.image_size[0]

    def decoded(plan: Schedule) -> Iterator[Tensor]:
        for rows in plan.all_batches:
            pictures = []
            for row in rows:
                image = Image.open(extracting.root / extracting.index.image_id[row])
                scale = round(view_side / 0.875) / min(image.size)
                size = tuple(int(side * scale + 1e-9) for side in image.size)
                image = image.resize(size, Image.Resampling.BICUBIC)
                left, top = (round((side - view_side) / 2) for side in size)
                crop = image.crop((left, top, left + view_side, top + view_side))
                pictures.append(np.asarray(crop))
            yield torch.from_numpy(np.stack(pictures))

    extracting(tmp_path / "m.zarr", batches=decoded)
    _same_files(tmp_path / "m.zarr", whole)


# --- Interrupted ---


class _Stop(Exception):  # noqa: N818  (what a test raises is no error of anybody's)
    pass


@pytest.mark.parametrize(("batch_size", "after"), [(5, 10), (8, 16), (3, 9), (16, 16)])
def test_an_interrupted_extraction_goes_on(
    extracting: Extract, images: Tensor, tmp_path: Path, batch_size: int, after: int
) -> None:
    settings = ALL.but(batch_size=batch_size)
    extracting(tmp_path / "whole.zarr", settings)
    out, done = tmp_path / "m.zarr", [0]

    def stop(count: int) -> None:
        done[0] += count
        if done[0] >= after:
            raise _Stop

    with pytest.raises(_Stop):
        extracting(out, settings, on_images=stop)
    assert not out.exists()
    markers = partial_path(out) / ".progress"
    finished = sorted(int(p.name) for p in markers.iterdir() if p.name.isdigit())
    with Watch(extracting.backbone, images) as watch:
        manifest = extracting(out, settings)
    assert watch.rows == [r for r in range(N_IMAGES) if r // 8 not in finished]
    # A batch larger than a block is cut to it.
    assert finished == [0]
    assert manifest["forward_images"] == N_IMAGES
    _same_files(out, tmp_path / "whole.zarr")


def test_a_written_block_is_not_written_again(
    extracting: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a larger batch pushes it again, beside its missing neighbour, as on a GPU."""
    monkeypatch.setattr(run, "schedule", lambda *args, on_gpu: schedule(*args, on_gpu=True))

    batches: list[int] = []

    def stop(count: int) -> None:
        batches.extend([count] if count else [])
        if len(batches) == 2:  # the first block is the writer's by then
            raise _Stop

    with pytest.raises(_Stop):
        extracting(tmp_path / "m.zarr", ALL.but(batch_size=8), on_images=stop)
    written: list[int] = []
    write = StoreWriter.write_block

    def noted(self: StoreWriter, block: int, *args: Any, **options: Any) -> None:
        written.append(block)
        write(self, block, *args, **options)

    monkeypatch.setattr(StoreWriter, "write_block", noted)
    extracting(tmp_path / "m.zarr", ALL.but(batch_size=16))
    assert written == [1, 2]


def test_a_source_that_fails(extracting: Extract, whole: Path, tmp_path: Path) -> None:
    closed = []

    def failing(plan: Schedule) -> Iterator[Tensor]:
        side = extracting.backbone.image_size[0]
        try:
            for rows in plan.all_batches[:3]:
                yield torch.zeros(len(rows), side, side, 3, dtype=torch.uint8)
            raise _Stop
        finally:
            closed.append(True)

    with pytest.raises(_Stop):
        extracting(tmp_path / "m.zarr", batches=failing)
    assert closed == [True]
    assert not (tmp_path / "m.zarr").exists()


def test_an_image_that_changed_since_it_was_indexed(
    backbone: Backbone, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(folder, copy)
    index = make_index(copy)
    (copy / index.image_id[20]).write_bytes(b"not what it was")
    with pytest.raises(DataError, match="has changed since it was indexed"):
        extract(backbone, index, copy, tmp_path / "m.zarr", ALL)
    # What was written before stays for the next run.
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    extract(backbone, make_index(copy), copy, tmp_path / "m.zarr", ALL)
    assert verify(tmp_path / "m.zarr")[1] == []


def test_settings_of_the_process_are_put_back(extracting: Extract, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        for number, stop in enumerate((False, True)):

            def on_images(count: int, stop: bool = stop) -> None:
                if count:
                    assert torch.get_float32_matmul_precision() == "highest"
                if count and stop:
                    raise _Stop

            try:
                extracting(tmp_path / f"{number}.zarr", on_images=on_images)
            except _Stop:
                assert stop
            assert torch.get_num_threads() == 2
            # Which threads that come and go with settings of their own would mix up.
            assert torch.get_float32_matmul_precision() == "high"
        modules = extracting.backbone.module.modules()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(before)


# --- Replacing ---


def test_a_store_of_other_settings_is_refused_and_replaced(
    extracting: Extract, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.zarr"
    extracting(out, ALL.but(taps=("cls",)))
    old = files(out)
    with pytest.raises(StoreError, match=r"a store from other settings stands there \(taps: "):
        extracting(out)
    assert files(out) == old

    def stop(count: int) -> None:
        if count:
            raise _Stop

    with pytest.raises(_Stop):
        extracting(out, ALL.but(replace=True), on_images=stop)
    assert files(out) == old
    extracting(out, ALL.but(replace=True))
    _same_files(out, whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "float32"}, "dtype: float16 in the store, float32 asked"),
        ({"precision": "bf16"}, "precision: fp32 in the store, bf16 asked"),
        ({"layers": "last"}, "layers: [0, 1] in the store, [1] asked"),
    ],
)
def test_settings_that_change_numbers_are_other_settings(
    extracting: Extract, whole: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(StoreError) as info:
        extracting(whole, ALL.but(**changes))
    assert words in str(info.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda b: replace(b, mean=(0.4, 0.4, 0.4)), "model.mean"),
        (lambda b: replace(b, interpolation="bilinear"), "view.interpolation"),
        (lambda b: replace(b, entry=b.entry.but(crop_fraction=1.0)), "view.crop_fraction"),
        (lambda b: make_backbone("plain"), "model.weights_sha256"),
    ],
    ids=["mean", "interpolation", "crop", "weights"],
)
def test_another_model_is_another_request(
    extracting: Extract, whole: Path, change: Callable[[Backbone], Backbone], key: str
) -> None:
    with pytest.raises(StoreError, match="other settings") as info:
        extract(change(extracting.backbone), extracting.index, extracting.root, whole, ALL)
    assert key in str(info.value)


def test_other_images_are_another_request(extracting: Extract, whole: Path) -> None:
    index = replace(extracting.index, label=1 - extracting.index.label)
    with pytest.raises(StoreError, match=r"data\.fingerprint"):
        extract(extracting.backbone, index, extracting.root, whole, ALL)


# --- The disk ---


def test_what_the_disk_cannot_hold_is_refused_before_anything_is_created(
    extracting: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**5, 10**5))
    with pytest.raises(StoreError, match=r"needs up to .* MiB, the disk has 97\.7 KiB free"):
        extracting(tmp_path / "m.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up(
    extracting: Extract, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StoreWriter.write_block

    def full(self: StoreWriter, block: int, *args: Any, **options: Any) -> None:
        if block == 1:
            raise self._write_error(
                OSError(errno.ENOSPC, "No space left on device"), f"block {block}"
            )
        write(self, block, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write_block", full)
        with pytest.raises(StoreError, match="no space left on the disk"):
            extracting(tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()
    extracting(tmp_path / "m.zarr")
    _same_files(tmp_path / "m.zarr", whole)


# --- Numbers that are none ---

_CLS, _REGISTER, _SPATIAL = slice(0, 1), slice(2, 3), slice(9, 10)


@pytest.fixture
def spoil(backbone: Backbone) -> Iterator[Callable[..., None]]:
    handles: list[Any] = []

    def do(value: float, token: slice, layer: int = 1) -> None:
        handles.extend(spoil_black_images(backbone, value, token, layer))

    yield do
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("token", "tap"), [(_CLS, "cls"), (_REGISTER, "registers"), (_SPATIAL, "spatial")]
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_and_inf_name_the_image(
    extracting: Extract,
    spoil: Callable[..., None],
    tmp_path: Path,
    value: float,
    token: slice,
    tap: str,
    dtype: str,
) -> None:
    spoil(value, token)
    taps = ("cls", "registers", "spatial")
    with pytest.raises(ModelError) as info:
        extracting(tmp_path / "m.zarr", ALL.but(taps=taps, dtype=dtype))
    image = extracting.index.image_id[BLACK]
    assert str(info.value) == (
        f"model small-registers, image {image}, layer 1, tap {tap}: the features hold NaN or inf; "
        "nothing is stored of them"
    )
    assert not (tmp_path / "m.zarr").exists()


def test_nan_in_attention_names_the_images(
    extracting: Extract, spoil: Callable[..., None], tmp_path: Path
) -> None:
    """Where only summaries are kept, the images that were pushed together."""
    spoil(float("nan"), _CLS, layer=0)
    image = extracting.index.image_id[BLACK]
    with pytest.raises(ModelError, match=rf"image {image}, layer 1, tap attention: .* NaN or inf"):
        extracting(tmp_path / "a.zarr", ALL.but(taps=("attention",)))
    with pytest.raises(ModelError, match="layer 1, tap attention: ") as info:
        extracting(tmp_path / "s.zarr", ALL.but(taps=("attention_summary",)))
    first, last = str(info.value).split("image ")[1].split(",")[0].split(" to ")
    ids = extracting.index.image_id
    assert ids.index(first) <= BLACK <= ids.index(last)
    assert ids.index(last) - ids.index(first) < 4


@pytest.mark.parametrize("value", [65520.0, -70000.0, 3e38])
def test_what_float16_cannot_hold(
    extracting: Extract, spoil: Callable[..., None], tmp_path: Path, value: float
) -> None:
    spoil(value, _SPATIAL)
    settings = ALL.but(taps=("cls", "spatial"))
    with pytest.raises(ModelError) as info:
        extracting(tmp_path / "m.zarr", settings)
    message = str(info.value)
    assert f"image {extracting.index.image_id[BLACK]}, layer 1, tap spatial" in message
    assert f"magnitude {abs(value):.4g} does not fit float16" in message
    assert "set extraction.dtype: float32" in message
    assert not (tmp_path / "m.zarr").exists()
    # Which then works. The unfinished store is of other settings.
    extracting(tmp_path / "m.zarr", settings.but(dtype="float32", replace=True))
    found = open_store(tmp_path / "m.zarr")["spatial"][BLACK, 1, 1, 0]
    assert np.array_equal(found, np.full(48, value, np.float32))


def test_the_largest_float16_fits(
    extracting: Extract, spoil: Callable[..., None], tmp_path: Path
) -> None:
    spoil(65519.0, _SPATIAL)  # rounds down to 65504
    extracting(tmp_path / "m.zarr", ALL.but(taps=("spatial",)))
    assert open_store(tmp_path / "m.zarr")["spatial"][BLACK, 1, 1, 0].max() == 65504


def test_what_is_not_stored_need_not_fit(
    extracting: Extract, spoil: Callable[..., None], tmp_path: Path
) -> None:
    """Registers are known for their size; a store without them has no trouble with it."""
    spoil(1e6, _REGISTER)
    extracting(tmp_path / "m.zarr", ALL.but(taps=("cls", "spatial")))
    assert verify(tmp_path / "m.zarr")[1] == []


# --- Before anything is written ---


def test_a_model_whose_attention_cannot_be_tapped(
    index: Index, folder: Path, tmp_path: Path
) -> None:
    class Unknown(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    backbone = fake_backbone([FakeBlock(Unknown())])
    with pytest.raises(ModelError, match="cannot be tapped; leave out the taps"):
        extract(backbone, index, folder, tmp_path / "m.zarr", ALL)
    assert list(tmp_path.iterdir()) == []


def test_attention_that_does_not_sum_to_one(index: Index, folder: Path, tmp_path: Path) -> None:
    class Sharing(FakeAttention):
        def __init__(self) -> None:
            super().__init__()
            del self.options
            self.attn_drop = torch.nn.Identity()

        def forward(self, tokens: Tensor) -> Tensor:
            split = tokens.unflatten(-1, (2, -1)).transpose(1, 2)
            weights = self.attn_drop((split @ split.transpose(-2, -1)).sigmoid())
            return (weights @ split).transpose(1, 2).flatten(2)

        def __getattribute__(self, name: str) -> Any:
            if name == "fused_attn":
                raise AttributeError(name)
            return super().__getattribute__(name)

    backbone = fake_backbone([FakeBlock(Sharing())])
    with pytest.raises(ModelError, match="do not sum to 1"):
        extract(backbone, index, folder, tmp_path / "m.zarr", ALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "mps", "meta", "CPU"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(ConfigError, match=r"extraction\.device: found .*; allowed: auto, cpu"):
        Settings.checked("extraction.", {"device": name})


def test_a_gpu_that_is_not_there() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=rf"found '{missing}', but this machine has \d+ usable"):
        choose_device(missing)


def test_cpu_and_auto() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


# --- Precision ---


def test_tf32_needs_a_gpu(extracting: Extract, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tf32 needs an NVIDIA GPU, the device is cpu"):
        extracting(tmp_path / "m.zarr", ALL.but(precision="tf32"))
    assert list(tmp_path.iterdir()) == []


def test_bf16_attention_of_pytorchs_own_module(index: Index, folder: Path, tmp_path: Path) -> None:
    """open_clip's blocks; on a CPU it rounds the softmax to bfloat16."""
    entry = ModelEntry(id="oc", source="open_clip", name="ViT-S-32-alt", image_size=96)
    settings = ALL.but(taps=("attention",), layers="last", precision="bf16")
    extract(load_backbone(entry), index, folder, tmp_path / "m.zarr", settings)
    sums = np.asarray(open_store(tmp_path / "m.zarr")["attention"][:]).astype(np.float64).sum(-1)
    assert np.abs(sums - 1).max() < 0.02


def test_bf16_is_close_to_fp32(extracting: Extract, whole: Path, tmp_path: Path) -> None:
    """bfloat16 keeps 8 bits: factors are off by up to 0.4 %, two blocks' features by 3 %."""
    extracting(tmp_path / "m.zarr", ALL.but(precision="bf16"))
    found, expected = open_store(tmp_path / "m.zarr"), open_store(whole)
    assert found.attributes["request"]["precision"] == "bf16"
    # The softmax itself is float32's: what is left is the rounding of float16.
    sums = np.asarray(found["attention"][:]).astype(np.float64).sum(-1)
    assert np.abs(sums - 1).max() < 1e-3
    for name in ("cls", "spatial", "attention"):
        a, b = (np.asarray(s[name][:]).astype(np.float64) for s in (found, expected))
        difference = np.linalg.norm(a - b) / np.linalg.norm(b)
        # Not zero: the setting has reached the forward pass, in every thread.
        assert 1e-4 < difference < 0.03, name
        for image in range(N_IMAGES):
            assert not np.array_equal(a[image], b[image]), name


# --- Memory ---


@pytest.mark.parametrize("batch_size", [3, 8, 100])
def test_two_units_whatever_the_number_of_images(
    extracting: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    sizes: list[int] = []
    allocate = Unit.allocate

    def counted(layout: Any, n_rows: int, **options: Any) -> Unit:
        sizes.append(n_rows)
        return allocate(layout, n_rows, **options)

    monkeypatch.setattr(Unit, "allocate", counted)
    extracting(tmp_path / "m.zarr", ALL.but(taps=("cls",), batch_size=batch_size))
    assert sizes == [8, 8]
