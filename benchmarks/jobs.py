"""One store by several jobs: all CPU time, that of their starts, and of the last one, which seals.

Every job is a process of its own on one thread, as the workflow starts them (`extraction.jobs`). A
job that is run again finds its blocks there: what it takes then is its start. The stores must be
equal, byte by byte.

python -m benchmarks.jobs [--images 96] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.scaling import exponent
from benchmarks.timing import machine
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec

NAME, SIZE = "vit_small_patch16_224", 224
JOBS = (1, 2, 3, 6)
# Of float32, so that a block has 16 images.
FLAGS = ("--dtype", "float32", "--threads", "1", "--workers", "0", "--device", "cpu")


def images(folder: Path, n: int) -> Path:
    """Write images of noise and their index; return the index."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        image = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        image.save(folder / "images" / f"{i:04d}.png")
    index = folder / "images.csv"
    spec = DatasetSpec(name="images", layout="flat", root=folder / "images")
    build_index(spec).write(index)
    return index


def job(index: Path, store: Path, part: str | None) -> list[str]:
    """Return the arguments of vitfeat for one job: a part of the blocks, or all that is left."""
    entry = json.dumps({"source": "timm", "name": NAME, "seed": 0})
    where = ["--index", str(index), "--root", str(index.with_suffix("")), "--out", str(store)]
    blocks = ["--blocks", part] if part else []
    return ["extract", "vit", "--entry", entry, *where, *FLAGS, *blocks]


def run(index: Path, store: Path, part: str | None) -> float:
    """Run one job and return its CPU seconds."""
    command = [sys.executable, "-m", "vitfeat", *job(index, store, part)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with store.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{store.with_suffix('.log').read_text()}")
    return used.ru_utime + used.ru_stime


def content(store: Path) -> dict[str, bytes]:
    """Return every file of a store."""
    return {
        p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()
    }


def seconds(values: Sequence[float]) -> str:
    """Return a median and a range."""
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    total: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    last: dict[int, list[float]] = {jobs: [] for jobs in JOBS[1:]}
    starts: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = Path(name).resolve()
        index = images(scratch, options.images)
        for number in range(options.rounds):
            alone: dict[str, bytes] = {}
            for jobs in JOBS:
                store = scratch / f"{number}_{jobs}.zarr"
                parts = [f"{i + 1}/{jobs}" for i in range(jobs)] if jobs > 1 else []
                taken = [run(index, store, part) for part in parts]
                if parts:
                    starts.append(run(index, store, parts[-1]))
                taken.append(run(index, store, None))
                total[jobs].append(sum(taken))
                if parts:
                    last[jobs].append(taken[-1])
                alone = alone or content(store)
                assert content(store) == alone
                print(jobs, [round(t, 1) for t in taken], file=sys.stderr, flush=True)
    start = statistics.median(starts)
    print(
        f"{machine()}; {NAME}, {options.images} images, one thread a job, {options.rounds} rounds"
    )
    print(f"\nThe start of a job: {seconds(starts)}\n")
    heads = ["jobs", "processes", "CPU time of all", "of the last, which seals", "without starts"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    work: dict[int, list[float]] = {}
    for jobs, taken in total.items():
        processes = jobs + (jobs > 1)
        work[jobs] = [t - processes * start for t in taken]
        sealing = seconds(last[jobs]) if jobs in last else ""
        cells = [str(jobs), str(processes), seconds(taken), sealing, seconds(work[jobs])]
        print(f"| {' | '.join(cells)} |")
    sizes = [float(jobs) for jobs in JOBS for _ in range(options.rounds)]
    for what, values in (("", total), (" without starts", work)):
        slope, half = exponent(sizes, [max(v, 1e-3) for jobs in JOBS for v in values[jobs]])
        print(f"\nExponent of CPU time{what} in jobs: {slope:.2f} ± {half:.2f}")


if __name__ == "__main__":
    main()
