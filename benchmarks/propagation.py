"""Label propagation beside a dense affinity times a mask, and a sweep over all layers.

The dense way is what one would write with PyTorch: cosines of every token with every token of the
context, their exponentials times a mask of the neighbourhood that was made beforehand, all below
the fifth set to zero, a product with the labels. Both take unit tokens; times are of one frame and
layer on one CPU thread. With --sweep: the pass of a model and the job `video` for all layers,
beside the pass of one layer and that layer's job times the number of layers.

OMP_NUM_THREADS=1 python -m benchmarks.propagation [--rounds 5] [--sweep] [--threads 1]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.timing import in_turn, machine
from vitfeat.analyses.video.job import write_video
from vitfeat.analyses.video.propagation import spread, unit_tokens
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.data.annotations import FrameRow
from vitfeat.data.index import Index
from vitfeat.data.layouts import read_annotated
from vitfeat.data.masks import write_mask
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import ViewSettings
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.files import write_json
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.tables import write_table

SETTINGS = VideoSettings()
OBJECTS = 3


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="also a ViT-B on a made video")
    parser.add_argument("--frames", type=int, default=6, help="of the video")
    parser.add_argument("--threads", type=int, default=1, help="of the sweep")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine() + "\n")
    print(
        "| tokens, width, context frames | ours | dense | times faster (range) | target | labels "
        "apart | (the mask) |"
    )
    print("|---|---|---|---|---|---|---|")
    for grid, width, target in (
        ((28, 49), 768, "<= 0.25 s"),
        ((28, 49), 384, ""),
        ((49, 28), 768, ""),
    ):
        with threadpool_limits(1):
            compare(grid, width, options.rounds, target)
    if options.sweep:
        sweep(options.frames, options.threads)


def compare(grid: tuple[int, int], width: int, rounds: int, target: str) -> None:
    """Print a row of one size."""
    frames = SETTINGS.context + 1
    generator = np.random.default_rng(0)
    still = generator.standard_normal((*grid, width), dtype=np.float32)

    def frame() -> NDArray[np.float32]:
        return still + 0.5 * generator.standard_normal(still.shape, dtype=np.float32)

    keys = np.stack([unit_tokens(frame()) for _ in range(frames)])
    query = unit_tokens(frame())
    labels = generator.random((frames, *grid, OBJECTS + 1))
    labels /= labels.sum(axis=-1, keepdims=True)
    started = time.perf_counter()
    mask = neighbourhoods(grid).repeat(1, frames)
    built = time.perf_counter() - started
    tokens, context = torch.from_numpy(query), torch.from_numpy(keys)
    soft = torch.from_numpy(labels.astype(np.float32))
    found: dict[str, NDArray[np.float64]] = {}

    def ours() -> None:
        found["ours"] = spread(query, keys, labels, SETTINGS)

    def other() -> None:
        found["dense"] = dense(tokens, context, soft, mask).numpy().reshape(found["ours"].shape)

    pair = in_turn(ours, other, rounds=rounds)
    name = f"{grid[0]} x {grid[1]}, {width}, {frames}"
    apart = np.abs(found["ours"] - found["dense"]).max()
    print(f"{pair.row(name, target)} {apart:.0e} | {built:.2f} s |", flush=True)


def neighbourhoods(grid: tuple[int, int]) -> Tensor:
    """Return (query, key): 1 where a token of a frame may be matched."""
    rows, columns = np.indices(grid).reshape(2, -1)
    near = [np.abs(at[:, None] - at) <= SETTINGS.neighbourhood for at in (rows, columns)]
    return torch.from_numpy((near[0] & near[1]).astype(np.float32))


def dense(query: Tensor, keys: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Take labels by the whole affinity: (token, label)."""
    tokens, width = query.shape[0] * query.shape[1], query.shape[-1]
    affinity = torch.exp(
        query.reshape(tokens, width) @ keys.reshape(-1, width).T / SETTINGS.temperature
    )
    affinity *= mask
    last = affinity.topk(SETTINGS.top, dim=1).values[:, -1:]
    affinity[affinity < last] = 0
    affinity /= affinity.sum(dim=1, keepdim=True)
    return affinity @ labels.reshape(-1, labels.shape[-1])


def sweep(n_frames: int, threads: int) -> None:
    """Print what all layers of a ViT-B/16 take beside one layer times their number."""
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        index, frames = made_video(scratch, n_frames)
        entry = ModelEntry.from_mapping("vit", {"source": "timm", "name": "vit_base_patch16_224"})
        backbone = load_backbone(entry)
        seconds: dict[str, tuple[float, float]] = {}
        for layers in ("last", "all"):
            store = scratch / "features" / layers / "vit.zarr"
            settings = Settings(
                taps=("spatial",),
                layers=layers,
                batch_size=1,
                device="cpu",
                threads=threads,
                view=ViewSettings(kind="dense", short_side=448, passes="one"),
            )

            def job(store: Path = store, layers: str = layers) -> None:
                write_video(
                    store,
                    scratch / "frames.csv",
                    scratch / "index.csv",
                    scratch,
                    scratch / f"{layers}.csv",
                    None,
                    None,
                    SETTINGS,
                    threads=threads,
                )

            started = time.perf_counter()
            write_json(
                store.with_suffix(".json"), extract(backbone, index, scratch, store, settings)
            )
            passed = time.perf_counter() - started
            if layers == "last":
                # What is done once a process must not count for every layer.
                job()
            started = time.perf_counter()
            job()
            seconds[layers] = (passed, time.perf_counter() - started)
        n = backbone.depth
        one, every = seconds["last"], seconds["all"]
        bound = one[0] + n * one[1]
        print(f"\nViT-B/16, {len(frames)} frames of 854 x 480, {threads} threads\n")
        print("| | pass | job video | together |")
        print("|---|---|---|---|")
        print(f"| one layer | {one[0]:.1f} s | {one[1]:.1f} s | |")
        print(f"| one pass and {n} times a layer's job | | | {bound:.1f} s |")
        print(f"| all {n} layers | {every[0]:.1f} s | {every[1]:.1f} s | {sum(every):.1f} s |")
        print(f"\nRatio {sum(every) / bound:.2f}, target <= 1.3")
    finally:
        shutil.rmtree(scratch)


def made_video(root: Path, n_frames: int) -> tuple[Index, list[FrameRow]]:
    """Write a video in the layout davis: bright squares that move over smooth noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 120, (16, 28, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((854, 480), Image.Resampling.BICUBIC))
    folders = [root / part / "480p" / "squares" for part in ("JPEGImages", "Annotations")]
    for folder in (*folders, root / "ImageSets" / "2017"):
        folder.mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("squares\n")
    for number in range(n_frames):
        pixels, mask = ground.copy(), np.zeros((480, 854), dtype=np.uint8)
        for one in range(1, OBJECTS + 1):
            top, left = 120 * one - 60, 60 + 40 * number * one
            pixels[top : top + 90, left : left + 120] = 255 - 60 * one
            mask[top : top + 90, left : left + 120] = one
        Image.fromarray(pixels).save(folders[0] / f"{number:05d}.jpg")
        write_mask(folders[1] / f"{number:05d}.png", mask)
    spec = DatasetSpec(name="davis", layout="davis", root=root, split="val")
    index = build_index(spec)
    index.write(root / "index.csv")
    _, rows = read_annotated(spec, index, [])
    write_table(root / "frames.csv", FrameRow, rows)
    return index, rows


if __name__ == "__main__":
    main()
