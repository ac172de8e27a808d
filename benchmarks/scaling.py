"""How CPU time and memory grow with images, layers, width and models: fitted exponents.

Each size is taken in a process of its own, after a first go at the smallest size, and the sizes in
turn, round by round. The exponent is the slope of a least-squares line through the logarithms, with
its 95 % interval; beside it stands that of a formula, over the same sizes. CPU time, on one thread,
is what other work on a machine changes least.

python -m benchmarks.scaling [--rounds 3] [--small] [--only WORD]
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.stats import t
from threadpoolctl import threadpool_limits

from benchmarks.knn import features
from benchmarks.timing import machine
from vitfeat.analyses.cka.compute import cka
from vitfeat.data.index import Index
from vitfeat.extraction.pipeline import Schedule
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.shapes import Shape
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.numerics.kmeans import k_means
from vitfeat.numerics.neighbours import nearest_images

ROOT = Path(__file__).resolve().parent.parent
Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured along one size.

    Attributes
    ----------
    what, along
        Name of the work and of the size.
    sizes
        The sizes, ascending.
    prepare
        Makes the input of a size in a folder and returns the work that is timed.
    operations, n_bytes
        What a formula gives for a size, up to a factor.
    program
        Whether the work is another program, with a start of its own: its memory is not measured,
        since a child counts as large as what started it.
    """

    what: str
    along: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], Work]
    operations: Callable[[int], float]
    n_bytes: Callable[[int], float]
    program: bool = False


def extraction(folder: Path, *, n: int, depth: int, width: int) -> Work:
    """Extract CLS and spatial tokens of images of noise."""
    args = {"depth": depth, "embed_dim": width, "num_heads": 2, "patch_size": 8}
    entry = {"source": "timm", "name": "vit_tiny_patch16_224", "image_size": 64}
    backbone = load_backbone(ModelEntry.from_mapping("vit", {**entry, "args": args}))
    memory = torch.randint(0, 256, (64, 64, 64, 3), dtype=torch.uint8)
    index = Index(
        image_id=[f"{i:06d}.jpg" for i in range(n)],
        label=np.full(n, -1),
        class_name=[""] * n,
        width=np.full(n, 64),
        height=np.full(n, 64),
        n_bytes=np.full(n, 1),
        sha256=["0" * 64] * n,
    )

    def batches(plan: Schedule) -> Iterator[torch.Tensor]:
        return (memory[: b.stop - b.start] for b in plan.all_batches)

    settings = Settings(device="cpu", threads=1, workers=0)
    return lambda: extract(backbone, index, folder, folder / "v.zarr", settings, batches=batches)


def operations(n: int, depth: int, width: int) -> float:
    """Return the operations of an extraction."""
    return n * Shape(depth, width, heads=2, patch=8, image_size=64).flops_per_image


def gram_matrix(n: int, width: int) -> Work:
    """Compute one Gram matrix."""
    x = features(n, width, 1).astype(np.float16)
    return lambda: gram(lambda a, b: x[a:b], n)


def gram_files(folder: Path, *, models: int, layers: int, n: int) -> list[GramFile]:
    """Write the Gram matrices of models."""
    files = []
    for model in range(models):
        path = folder / f"{model}.safetensors"
        matrices = (gram(_slices(features(n, 32, seed)), n) for seed in range(layers))
        meta = GramMeta(str(model), "d", "cls", "images", str(model))
        write_gram_file(path, list(range(layers)), matrices, meta)
        files.append(GramFile(path))
    return files


def pairs(folder: Path, *, models: int, layers: int, n: int) -> Work:
    """Compare all pairs of models; of two models these two only."""
    files = gram_files(folder, models=models, layers=layers, n=n)
    chosen = [files] if models == 2 else list(combinations_with_replacement(files, 2))
    return lambda: [cka(a, b) for a, b in chosen]


def clusters(n: int, width: int, layers: int) -> Work:
    """Cluster images by every layer."""
    x = [features(n, width, seed) for seed in range(layers)]
    return lambda: k_means(x, 20, n_init=2)


def neighbours(n: int, width: int) -> Work:
    """Search the 20 nearest among n images."""
    queries, bank = features(1000, width, 1), features(n, width, 2)
    return lambda: list(nearest_images(_slices(queries), len(queries), _slices(bank), n, 20))


def planning(folder: Path, *, models: int) -> Work:
    """Plan the embedded default with so many models."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    entry = {"source": "timm", "name": "vit_tiny_patch16_224"}
    config["catalog"] = {f"m{i:03d}": {**entry, "seed": i} for i in range(models)}
    config |= {"models": list(config["catalog"]), "results": str(folder / "results")}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--configfile", str(path)]
    return lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def _slices(x: NDArray[np.float32]) -> Callable[[int, int], NDArray[np.float32]]:
    return lambda start, stop: x[start:stop]


CASES = (
    Case(
        "extraction: 4 layers x 64",
        "images",
        (512, 1024, 2048, 4096),
        lambda n, to: extraction(to, n=n, depth=4, width=64),
        lambda n: operations(n, 4, 64),
        lambda n: 1,
    ),
    Case(
        "extraction: 256 images, width 64",
        "layers",
        (8, 16, 32, 64),
        lambda depth, to: extraction(to, n=256, depth=depth, width=64),
        lambda depth: operations(256, depth, 64),
        lambda depth: depth,
    ),
    Case(
        "extraction: 256 images, 4 layers",
        "width",
        (128, 256, 512, 1024),
        lambda width, to: extraction(to, n=256, depth=4, width=width),
        lambda width: operations(256, 4, width),
        lambda width: width,
    ),
    Case(
        "Gram matrix: width 2,048",
        "images",
        (1024, 2048, 4096, 8192),
        lambda n, to: gram_matrix(n, 2048),
        lambda n: n**2,
        lambda n: 16 * n**2 + 4 * 2048 * n,
    ),
    Case(
        "Gram matrix: 1,024 images",
        "width",
        (8192, 16384, 32768, 65536),
        lambda width, to: gram_matrix(1024, width),
        lambda width: width,
        lambda width: 16 * 1024**2 + 4 * 1024 * width,
    ),
    Case(
        "CKA of a pair: 2 layers",
        "images",
        (1024, 2048, 4096, 8192),
        lambda n, to: pairs(to, models=2, layers=2, n=n),
        lambda n: n**2,
        lambda n: 1,
    ),
    Case(
        "CKA of a pair: 1,024 images",
        "layers",
        (8, 16, 32, 64),
        lambda layers, to: pairs(to, models=2, layers=layers, n=1024),
        lambda layers: layers**2,
        lambda layers: layers,
    ),
    Case(
        "CKA of all pairs: 4 layers, 512 images",
        "models",
        (4, 8, 16, 32),
        lambda models, to: pairs(to, models=models, layers=4, n=512),
        # Files that are read: two a pair, one of a model with itself.
        lambda models: models**2,
        lambda models: 1,
    ),
    Case(
        "k-means: width 128, 20 clusters",
        "images",
        (8000, 16_000, 32_000, 64_000),
        lambda n, to: clusters(n, 128, 1),
        lambda n: n,
        lambda n: n,
    ),
    Case(
        "k-means: 8,000 images, 20 clusters",
        "width",
        (128, 256, 512, 1024),
        lambda width, to: clusters(8000, width, 1),
        lambda width: width,
        lambda width: width,
    ),
    Case(
        "k-means: 4,000 images, width 128",
        "layers",
        (4, 8, 16, 32),
        lambda layers, to: clusters(4000, 128, layers),
        lambda layers: layers,
        lambda layers: 1,
    ),
    Case(
        "k-NN: 1,000 queries, width 128",
        "images of the bank",
        (40_000, 80_000, 160_000, 320_000),
        lambda n, to: neighbours(n, 128),
        lambda n: n,
        lambda n: 1,
    ),
    Case(
        "k-NN: 1,000 queries, 40,000 images",
        "width",
        (128, 256, 512, 1024),
        lambda width, to: neighbours(40_000, width),
        lambda width: width,
        lambda width: width,
    ),
    Case(
        "a dry run of the embedded default",
        "models",
        (8, 16, 32, 64),
        lambda models, to: planning(to, models=models),
        lambda models: models**2,
        lambda models: models**2,
        program=True,
    ),
)


def measure(case: Case, size: int, scratch: Path) -> tuple[float, float]:
    """Return CPU seconds, and the MiB that memory grew by at most, in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        torch.set_num_threads(1)
        with threadpool_limits(1):
            folders = [Path(tempfile.mkdtemp(dir=scratch)) for _ in range(2)]
            if not case.program:
                case.prepare(case.sizes[0], folders[0])()
            work = case.prepare(size, folders[1])
            # Peak memory is counted from here, with what was freed before given back.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            before, files, started = _status("VmRSS"), _status("RssFile"), _cpu_seconds()
            work()
            seconds, grown = _cpu_seconds() - started, _status("VmHWM") - before
            # Pages of mapped files are the kernel's to take back.
            grown -= max(0, _status("RssFile") - files)
            there.send((seconds, max(1.0, grown / 1024)))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _cpu_seconds() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def exponent(sizes: list[float], values: list[float]) -> tuple[float, float]:
    """Return the slope of log values over log sizes, and half its 95 % interval."""
    x, y = np.log(sizes) - np.mean(np.log(sizes)), np.log(values)
    slope = float(x @ y / (x @ x))
    if (free := len(x) - 2) < 1:
        return slope, float("nan")
    rest = y - y.mean() - slope * x
    return slope, float(t.ppf(0.975, free) * np.sqrt(rest @ rest / free / (x @ x)))


def row(case: Case, sizes: tuple[int, ...], measured: list[tuple[int, float, float]]) -> str:
    """Return a line of the Markdown table."""
    cells = [case.what, f"{case.along}, {sizes[0]:,} to {sizes[-1]:,}"]
    taken = [float(size) for size, *_ in measured]
    columns = ((1, " s", case.operations), (2, " MiB", case.n_bytes))
    for column, unit, formula in columns[: 1 if case.program else 2]:
        last = statistics.median(m[column] for m in measured if m[0] == sizes[-1])
        slope, half = exponent(taken, [m[column] for m in measured])
        expected, _ = exponent(list(map(float, sizes)), [formula(s) for s in sizes])
        places = 0 if last >= 10 else 2
        cells += [f"{last:,.{places}f}{unit}", f"{slope:.2f} ± {half:.2f}", f"{expected:.2f}"]
    if case.program:
        cells += [""] * 3
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="the two smallest sizes only")
    parser.add_argument("--only", default="", help="what has this in its name")
    options = parser.parse_args()
    print(machine() + f"; one thread, {options.rounds} rounds\n")
    heads = ["what", "along", "CPU time of the largest", "exponent", "of operations"]
    heads += ["memory of the largest", "exponent", "of bytes"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for case in CASES:
        if options.only not in case.what:
            continue
        sizes = case.sizes[:2] if options.small else case.sizes
        measured = []
        for _ in range(options.rounds):
            for size in sizes:
                with tempfile.TemporaryDirectory(dir=".") as scratch:
                    measured.append((size, *measure(case, size, Path(scratch).resolve())))
        print(row(case, sizes, measured), flush=True)


if __name__ == "__main__":
    main()
