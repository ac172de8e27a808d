"""Extraction by vitfeat beside thingsvision: the same network, images, crops, layers and tokens.

Both load the same file of weights (an untrained ViT), take the photographs of a folder from their
files and write the output of every block, all tokens, to disk. thingsvision is installed in an
environment of its own (docs/benchmarks.md says how), of which this takes the Python. Each run is a
process; they run in turn.

python -m benchmarks.others --python OTHER/bin/python --folder PHOTOS [--images 128] [--rounds 3]
    [--without WORD]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from benchmarks.timing import machine

NAME, DEPTH, BATCH, SEED = "vit_small_patch16_224", 12, 32, 0
MODULES = [f"blocks.{i}" for i in range(DEPTH)]

# How each is run, the first is what the others stand beside.
OURS = {
    "vitfeat extract (float16)": {"dtype": "float16"},
    "vitfeat extract --dtype float32": {"dtype": "float32"},
}
THEIRS: dict[str, dict[str, Any]] = {
    "thingsvision, all modules in one call": {"module_names": MODULES},
    "the same, step_size=1": {"module_names": MODULES, "step_size": 1},
    "thingsvision, a call for each module": {},
}


@dataclass(frozen=True)
class Run:
    """What a run took: all of the process, and of it the part behind imports and weights."""

    wall: float
    cpu: float
    work: float
    peak_mib: float
    written_mb: float


def vitfeat_run(folder: Path, weights: Path, out: Path, how: dict[str, Any]) -> float:
    """Extract by vitfeat and return the seconds from the list of images to the sealed store."""
    from vitfeat.data.scan import build_index
    from vitfeat.data.spec import DatasetSpec
    from vitfeat.data.views import ViewSettings
    from vitfeat.extraction.run import extract
    from vitfeat.extraction.settings import Settings
    from vitfeat.models.entry import ModelEntry
    from vitfeat.models.loading import load_backbone

    entry = {"source": "timm", "name": NAME, "checkpoint": str(weights), "normalisation": "half"}
    backbone = load_backbone(ModelEntry.from_mapping("vit", entry))
    # The crop of timm's own transform for this network: 224 of 248.
    view = ViewSettings(crop_fraction=0.9)
    started = time.perf_counter()
    index = build_index(DatasetSpec(name="photographs", layout="flat", root=folder))
    settings = Settings(view=view, batch_size=BATCH, device="cpu", **how)
    extract(backbone, index, folder, out, settings)
    return time.perf_counter() - started


def thingsvision_run(folder: Path, weights: Path, out: Path, how: dict[str, Any]) -> float:
    """Extract by thingsvision, as its README does, and return the seconds of that."""
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    extractor = get_extractor(
        model_name=NAME, source="timm", device="cpu", pretrained=False, model_path=str(weights)
    )
    started = time.perf_counter()
    dataset = ImageDataset(
        root=str(folder),
        out_path=str(out),
        backend=extractor.get_backend(),
        transforms=extractor.get_transformations(),
    )
    batches = DataLoader(dataset=dataset, batch_size=BATCH, backend=extractor.get_backend())
    for call in [how] if how else [{"module_names": [name]} for name in MODULES]:
        extractor.extract_features(
            batches=batches, flatten_acts=False, output_type="ndarray", output_dir=str(out), **call
        )
    return time.perf_counter() - started


def measured(command: list[str], out: Path) -> Run:
    """Run a process; its memory is shared out among its children's (PSS), looked at often."""
    import psutil

    shutil.rmtree(out, ignore_errors=True)
    log = out.with_suffix(".log")
    # Each takes the threads that it takes by itself.
    environment = {name: v for name, v in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with log.open("w") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        peak, ended = 0, 0
        while not ended:
            held = 0
            for each in (p := psutil.Process(process.pid), *p.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held += each.memory_full_info().pss
            peak = max(peak, held)
            time.sleep(0.1)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - started
    lines = log.read_text().splitlines()
    if status:
        raise SystemExit("\n".join([*lines[-20:], f"failed: {' '.join(command)}"]))
    written = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    work = float(lines[-1])
    return Run(wall, used.ru_utime + used.ru_stime, work, peak / 2**20, written / 1e6)


def difference(store: Path, other: Path) -> float:
    """Return the largest difference of any token of any layer, beside the largest number."""
    from vitfeat.store.opening import open_store

    ours = open_store(store)
    names = (other / "file_names.txt").read_text().split()
    assert [Path(name).name for name in names] == list(ours.image_ids)
    worst, largest = 0.0, 0.0
    for layer, module in enumerate(MODULES):
        # Their names end with the number of images so far; what stands before that is not reliable.
        files = sorted((other / module).iterdir(), key=lambda f: int(f.stem.rpartition("-")[2]))
        theirs = np.concatenate([np.load(f) for f in files])
        spatial = ours["spatial"][:, layer].reshape(len(theirs), -1, theirs.shape[-1])
        tokens = np.concatenate([ours["cls"][:, layer][:, None], spatial], axis=1, dtype=np.float32)
        worst = max(worst, float(np.abs(tokens - theirs).max()))
        largest = max(largest, float(np.abs(theirs).max()))
    return worst / largest


def ratio(ours: list[Run], other: list[Run], of: Callable[[Run], float]) -> str:
    """Return the median and range over the rounds of another's share of ours."""
    each = [of(b) / of(a) for a, b in zip(ours, other, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", help="the Python of an environment with thingsvision")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", help="leave out what has this in its name")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        how, folder, weights, out = options.child
        run, settings = (vitfeat_run, OURS[how]) if how in OURS else (thingsvision_run, THEIRS[how])
        print(f"\n{run(Path(folder), Path(weights), Path(out), settings)}")
        return
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = Path(name).resolve()
        weights, folder = scratch / "weights.pth", scratch / "photographs"
        torch.manual_seed(SEED)
        torch.save(timm.create_model(NAME).state_dict(), weights)
        folder.mkdir()
        for photograph in sorted(options.folder.iterdir())[: options.images]:
            shutil.copy(photograph, folder)
        n = len(list(folder.iterdir()))
        theirs = [how for how in THEIRS if not options.without or options.without not in how]
        runs: dict[str, list[Run]] = {how: [] for how in (*OURS, *theirs)}
        outs = {how: scratch / f"{i}.zarr" for i, how in enumerate(runs)}
        for _ in range(options.rounds):
            for how, done in runs.items():
                python = sys.executable if how in OURS else options.python
                command = [python, "-m", "benchmarks.others", "--child", how]
                paths = map(str, (folder, weights, outs[how]))
                done.append(measured([*command, *paths], outs[how]))
                # Rounds take minutes.
                print(how, done[-1], file=sys.stderr, flush=True)
        print(machine() + f"; {NAME}, {n} photographs, {options.rounds} rounds\n")
        heads = ["what", "images/s", "seconds beside ours (range)", "whole process", "CPU time"]
        heads += ["CPU time beside ours (range)", "peak memory", "written"]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        ours = runs[next(iter(OURS))]
        for how, done in runs.items():
            wall, cpu, work, peak, written = (
                statistics.median(values) for values in zip(*map(astuple, done), strict=True)
            )
            print(
                f"| {how} | {n / work:.1f} | {ratio(ours, done, lambda r: r.work)} | {wall:.1f} s "
                f"| {cpu:.1f} s | {ratio(ours, done, lambda r: r.cpu)} | {peak:,.0f} MiB "
                f"| {written:,.0f} MB |"
            )
        print()
        for how in OURS:
            far = [difference(outs[how], outs[other]) for other in theirs]
            print(f"Largest difference from {how}, beside the largest number: {max(far):.1e}")


if __name__ == "__main__":
    main()
