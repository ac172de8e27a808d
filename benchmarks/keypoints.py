"""Keypoints found in upsampled feature maps, beside upsampling the maps of every pair.

The other way is what one would write: torch.nn.functional.interpolate (bilinear, align_corners
False) of both maps to the pixels of the images, the target's normalised, its product with the
features at the source's points, argmax. Ours never makes a map, and takes the pairs of a target
together. Both in one layer, on one thread by default; tokens are in memory on both sides.

python -m benchmarks.keypoints [--small] [--grid 14] [--width 768] [--pairs 4] [--points 7]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.timing import in_turn, machine
from vitfeat.numerics.upsampled import features_at, nearest_pixels

Floats = NDArray[np.float32]

SIZES = {"SPair-71k's images": (500, 375), "maps of 224 x 224": (224, 224)}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, default=14)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--pairs", type=int, default=4, help="of one target")
    parser.add_argument("--points", type=int, default=7, help="of a pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="width 64, 2 pairs, 1 round")
    options = parser.parse_args()
    if options.small:
        options.width, options.pairs, options.rounds = 64, 2, 1
    torch.set_num_threads(options.threads)
    print(machine() + f"; threads: {options.threads}\n")
    print(
        f"{options.pairs} pairs of one target, {options.points} points each, "
        f"{options.grid} x {options.grid} tokens of {options.width} channels\n"
    )
    heads = "ours | other | times faster (range) | target | ours a point | same place"
    print(f"| upsampled to | {heads} |")
    print("|---|---|---|---|---|---|---|")
    with threadpool_limits(options.threads):
        for name, size in SIZES.items():
            print(_row(name, size, options), flush=True)


def _row(name: str, size: tuple[int, int], options: argparse.Namespace) -> str:
    generator = np.random.default_rng(0)
    width, height = size
    # A world that all images show: what is looked for is there, as in real pairs.
    shape = (options.grid, options.grid, options.width)
    world = generator.standard_normal(shape)
    sources = [
        (world + 0.5 * generator.standard_normal(shape)).astype(np.float32)
        for _ in range(options.pairs)
    ]
    target = world.astype(np.float32)
    places = [
        np.stack(
            (
                generator.integers(0, width, options.points),
                generator.integers(0, height, options.points),
            ),
            axis=1,
        )
        for _ in range(options.pairs)
    ]
    box = (0.0, 0.0, float(width), float(height))
    found: dict[str, NDArray[np.float64]] = {}

    def ours() -> None:
        queries = [features_at(s, box, p) for s, p in zip(sources, places, strict=True)]
        found["ours"] = nearest_pixels(np.concatenate(queries), target, box, size).places

    def naive() -> None:
        found["naive"] = np.concatenate(
            [upsampled_pair(s, target, p, size) for s, p in zip(sources, places, strict=True)]
        )

    pair = in_turn(ours, naive, rounds=options.rounds, warmup=0)
    a_point = 1e3 * float(np.median(pair.ours)) / (options.pairs * options.points)
    # Runs at the edges stand in their middle on our side.
    far = np.abs(found["ours"] - found["naive"]).max(axis=1)
    same = (far <= max(size) / options.grid / 2).mean()
    return f"{pair.row(f'{name}, {width} x {height}', '>= 1')} {a_point:.2f} ms | {same:.0%} |"


def upsampled_pair(
    source: Floats, target: Floats, places: NDArray[np.int64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Find points by upsampling both maps: (point, x and y)."""
    width, height = size

    def grown(tokens: Floats) -> torch.Tensor:
        channels_first = torch.from_numpy(tokens).permute(2, 0, 1)[None].contiguous()
        return torch.nn.functional.interpolate(
            channels_first, size=(height, width), mode="bilinear", align_corners=False
        )[0]

    with torch.inference_mode():
        queries = grown(source)[:, places[:, 1], places[:, 0]]
        there = torch.nn.functional.normalize(grown(target).flatten(1), dim=0)
        best = (torch.nn.functional.normalize(queries, dim=0).T @ there).argmax(1).numpy()
    return np.stack((best % width, best // width), axis=1).astype(np.float64)


if __name__ == "__main__":
    main()
