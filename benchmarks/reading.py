"""Reading a store: ours beside zarr's own pipeline and zarrs, on the same files.

python -m benchmarks.reading STORE.zarr      (a store with `spatial`, of some hundred images)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import vitfeat
from benchmarks.codecs import PIPELINES
from benchmarks.timing import in_turn, machine


def main() -> None:
    """Measure and print a Markdown table a pipeline."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    ours = vitfeat.open(options.store)["spatial"]
    rows = np.sort(np.random.default_rng(0).permutation(len(ours))[:64])
    cases: dict[str, Callable[[Any], Any]] = {
        "one layer of all images": lambda array: array[:, 5],
        "one layer of one shard": lambda array: array[: ours.shards[0], 5],
        "four layers of one shard": lambda array: array[: ours.shards[0], 4:8],
        "all layers of one image": lambda array: array[3],
        "one layer of one image": lambda array: array[3, 5],
        "one layer of 64 images, shuffled": lambda array: (
            array[rows, 5] if array is ours else array.oindex[rows, 5]
        ),
    }
    print(f"{machine()}; {ours!r}, chunks {ours.chunks}, shards {ours.shards}")
    for pipeline, path in PIPELINES.items():
        with zarr.config.set({"codec_pipeline.path": path}):
            other: Any = zarr.open_array(options.store / "spatial", mode="r")
        print(f"\n| read | ours | {pipeline} | times faster (range) |\n|---|---|---|---|")
        for name, read in cases.items():
            assert np.array_equal(read(ours), read(other))
            pair = in_turn(_call(read, ours), _call(read, other), rounds=options.rounds)
            ratios = [b / a for a, b in zip(pair.ours, pair.other, strict=True)]
            left, right = (1e3 * float(np.median(s)) for s in (pair.ours, pair.other))
            print(
                f"| {name} | {left:.2f} ms | {right:.2f} ms | {pair.speed:.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) |"
            )


def _call(read: Callable[[Any], Any], array: Any) -> Callable[[], None]:
    def run() -> None:
        read(array)

    return run


if __name__ == "__main__":
    main()
