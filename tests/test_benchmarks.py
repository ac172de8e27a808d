"""The measurements run, on next to nothing: that of a GPU where there is none."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vitfeat
from benchmarks import earlier, gpu, jobs, others, scaling
from vitfeat.cli import main as run_vitfeat


def test_the_measurement_of_a_gpu_runs_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gpu.MODELS, "L/14")
    monkeypatch.setattr(sys, "argv", ["gpu", "--smoke", "--device", "cpu", "--out", str(tmp_path)])
    gpu.main()
    with (tmp_path / "gpu.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {row["what"].partition(" 64")[0] for row in rows}
    assert {"bare forward", *gpu.TAPS, "JPEG end to end", "CPU against device"} <= measured
    assert not any(row["note"].startswith("left out") for row in rows)
    equal = [row["note"] for row in rows if row["what"] == "CPU against device"]
    assert equal == ["within 0.001", "within 0.1"]
    # A header, a rule and a line for each row, as wide as the table; nothing else is left there.
    lines = (tmp_path / "gpu.md").read_text("utf-8").splitlines()[2:]
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {len(rows[0]) + 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.csv", "gpu.md"]


def test_an_exponent_is_that_of_a_power_and_its_interval_that_of_the_scatter() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert scaling.exponent(sizes, [5 * size**1.5 for size in sizes]) == pytest.approx((1.5, 0))
    # Logarithms 0, 1, 2, 3 and 0.1, 0.9, 1.9, 3.1 of base 2: slope 1; the rest 0.04 / 2 over 5,
    # times 4.303, the 97.5 % point of t with two degrees of freedom.
    scattered = [2**0.1, 2**0.9, 2**1.9, 2**3.1]
    assert scaling.exponent(sizes, scattered) == pytest.approx((1, 4.303 * 0.004**0.5), rel=1e-3)


def test_a_size_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    def prepare(size: int, _folder: Path) -> scaling.Work:
        return lambda: np.ones((size, 2**20)).sum()

    case = scaling.Case("sum", "MiB", (1, 32), prepare, float, float)
    seconds, mebibytes = scaling.measure(case, 32, tmp_path)
    assert seconds >= 0
    assert mebibytes == pytest.approx(256, abs=32)


def test_the_side_of_ours_beside_another_tool_writes_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "NAME", "vit_tiny_patch16_224")
    weights, folder, out = tmp_path / "w.pth", tmp_path / "photographs", tmp_path / "0.zarr"
    network = timm.create_model(others.NAME).eval()
    torch.save(network.state_dict(), weights)
    folder.mkdir()
    Image.new("RGB", (300, 248), (200, 100, 30)).save(folder / "a.png")
    assert others.vitfeat_run(folder, weights, out, {"dtype": "float32"}) > 0
    # What thingsvision writes: a folder a module, files by images, and the images' names.
    theirs = tmp_path / "1.zarr"
    image = torch.tensor([200, 100, 30]).view(1, 3, 1, 1).expand(1, 3, 224, 224) / 255
    with torch.inference_mode():
        _, blocks = network.forward_intermediates(
            (image - 0.5) / 0.5, return_prefix_tokens=True, output_fmt="NLC"
        )
    for module, (spatial, prefix) in zip(others.MODULES, blocks, strict=True):
        (theirs / module).mkdir(parents=True)
        np.save(theirs / module / "features_0-1.npy", torch.cat([prefix, spatial], 1).numpy())
    (theirs / "file_names.txt").write_text("a.png\n")
    assert others.difference(out, theirs) < 1e-5
    np.save(theirs / "blocks.11" / "features_0-1.npy", np.zeros((1, 197, 192), np.float32))
    assert others.difference(out, theirs) > 0.1


def test_a_store_to_read_beside_an_earlier_vitfeat_is_written_and_read_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "CHANNELS", 12)
    store = tmp_path / "store.zarr"
    earlier.write(store, "cls_and_spatial", 5)
    assert vitfeat.open(store)["spatial"].shape == (5, 12, 14, 14, 12)
    for case in earlier.CASES:
        first, again = earlier.read(store, "spatial", case, dropped=True)
        assert min(first, again) > 0


def test_the_jobs_that_are_measured_make_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "NAME", "vit_tiny_patch16_224")
    index, stores = jobs.images(tmp_path, 1), [tmp_path / f"{n}.zarr" for n in (1, 2)]
    for store, parts in zip(stores, ((None,), ("1/2", "2/2", None)), strict=True):
        assert [run_vitfeat(jobs.job(index, store, part)) for part in parts] == [0] * len(parts)
    assert jobs.content(stores[0]) == jobs.content(stores[1])
