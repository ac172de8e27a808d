"""Search of the nearest images, beside a bare blocked matrix product with topk.

The bare one is what one would write with everything in memory: blocks of unit vectors multiplied,
`topk` of each block by NumPy's argpartition (torch.topk with --torch, and on a GPU), joined with
the ones before, sorted at the end. The search takes features as they are stored, normalises them,
and has lists that are unique. Features are of classes that stand together, as in stores.

With `--faiss` the other side is an `IndexFlatIP` of faiss (`pip install faiss-cpu`), filled before,
and what counts is the CPU time of the process.

python -m benchmarks.knn [--full] [--threads 2] [--device cpu] [--rounds 3] [--faiss]
"""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.timing import in_turn, machine
from vitfeat.numerics.neighbours import nearest_images

Floats = NDArray[np.float32]

# Of both bare searches, as it runs fastest here.
_ROWS, _COLUMNS = 1024, 8192


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--neighbours", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="10,000 x 100,000 x 384")
    parser.add_argument("--faiss", action="store_true", help="beside faiss alone")
    options = parser.parse_args()
    if options.full:
        options.queries, options.bank, options.width = 10_000, 100_000, 384
    k, device = options.neighbours, options.device
    queries = features(options.queries, options.width, 1)
    bank = features(options.bank, options.width, 2)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank)]
    on_device = [torch.from_numpy(x).to(device) for x in units]
    found: dict[str, NDArray[np.int64]] = {}

    def ours() -> None:
        parts = nearest_images(
            lambda start, stop: queries[start:stop],
            len(queries),
            lambda start, stop: bank[start:stop],
            len(bank),
            k,
            threads=options.threads,
            device=device,
        )
        found["ours"] = np.concatenate([part.image for part in parts])

    def with_numpy() -> None:
        found["other"] = numpy_topk(*units, k)

    def with_torch() -> None:
        found["other"] = torch_topk(*on_device, k).cpu().numpy()

    def with_faiss() -> None:
        found["other"] = index.search(units[0], k)[1]

    def products() -> None:
        for x in on_device[0].split(_ROWS):
            for y in on_device[1].split(_COLUMNS):
                x @ y.T
        if device != "cpu":
            torch.cuda.synchronize()

    print(machine() + f"; {options.threads} threads, {device}\n")
    print(f"{options.queries:,} x {options.bank:,} x {options.width}, k = {k}\n")
    print("| against | ours | other | times faster (range) | target | same images |")
    print("|---|---|---|---|---|---|")
    torch.set_num_threads(options.threads)
    others = [
        ("products and argpartition", with_numpy, ">= 0.67"),
        ("products and torch.topk", with_torch, ">= 0.67"),
        ("products alone", products, ""),
    ]
    clock = time.process_time if options.faiss else time.perf_counter
    if options.faiss:
        faiss: Any = import_module("faiss")
        faiss.omp_set_num_threads(options.threads)
        index = faiss.IndexFlatIP(options.width)
        index.add(units[1])
        others = [(f"faiss {faiss.__version__}, IndexFlatIP", with_faiss, ">= 0.67")]
    for name, other, target in others:
        if other is with_numpy and device != "cpu":
            continue
        with threadpool_limits(options.threads):
            pair = in_turn(ours, other, rounds=options.rounds, clock=clock)
        alike = f"{(found['ours'] == found['other']).mean():.4%}" if other is not products else ""
        print(f"{pair.row(name, target)} {alike} |", flush=True)


def features(n: int, width: int, seed: int) -> Floats:
    """Draw images of 100 classes, one class after the other."""
    centres = np.random.default_rng(0).standard_normal((100, width))
    generator = np.random.default_rng(seed)
    classes = np.sort(generator.integers(0, 100, n))
    x = 0.5 * centres[classes] + generator.standard_normal((n, width))
    return x.astype(np.float32)


def numpy_topk(queries: Floats, bank: Floats, k: int) -> NDArray[np.int64]:
    """Find the nearest by NumPy alone."""
    out = np.empty((len(queries), k), dtype=np.int64)
    for first in range(0, len(queries), _ROWS):
        block = queries[first : first + _ROWS]
        values = np.empty((len(block), 0), dtype=np.float32)
        images = np.empty((len(block), 0), dtype=np.int64)
        for start in range(0, len(bank), _COLUMNS):
            product = block @ bank[start : start + _COLUMNS].T
            top = np.argpartition(product, -k, axis=1)[:, -k:]
            values = np.concatenate([values, np.take_along_axis(product, top, 1)], axis=1)
            images = np.concatenate([images, top + start], axis=1)
            best = np.argpartition(values, -k, axis=1)[:, -k:]
            values = np.take_along_axis(values, best, 1)
            images = np.take_along_axis(images, best, 1)
        order = np.argsort(-values, axis=1)
        out[first : first + _ROWS] = np.take_along_axis(images, order, 1)
    return out


def torch_topk(queries: torch.Tensor, bank: torch.Tensor, k: int) -> torch.Tensor:
    """Find the nearest by torch alone."""
    out = []
    for block in queries.split(_ROWS):
        values = block.new_empty((len(block), 0))
        images = torch.empty((len(block), 0), dtype=torch.int64, device=block.device)
        for number, columns in enumerate(bank.split(_COLUMNS)):
            top = (block @ columns.T).topk(k, dim=1)
            values = torch.cat([values, top.values], dim=1)
            images = torch.cat([images, top.indices + number * _COLUMNS], dim=1)
            best = values.topk(k, dim=1)
            values, images = best.values, images.gather(1, best.indices)
        out.append(images)
    return torch.cat(out)


if __name__ == "__main__":
    main()
