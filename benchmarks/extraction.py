"""Extraction of a ViT-S/16 at 224 beside a bare forward loop, and beside decoding.

python -m benchmarks.extraction [--images 128] [--rounds 5] [--device auto] [--folder PHOTOS]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import Pair, in_turn, machine
from vitfeat.data.loader import load_batches, normalise
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import SquareView
from vitfeat.device import choose_device
from vitfeat.extraction.pipeline import Schedule
from vitfeat.extraction.precision import autocast, matmul_precision
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone

BATCH = 32


def photographs(folder: Path, count: int) -> None:
    """Write JPEG files of about a photograph's size and smoothness."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = generator.normal(0, 6, (375, 500, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.jpg", quality=90)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--name", default="vit_small_patch16_224")
    parser.add_argument("--folder", type=Path, help="photographs; made up if not given")
    options = parser.parse_args()
    device = choose_device(options.device)
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        folder = options.folder
        if folder is None:
            folder = scratch / "photographs"
            folder.mkdir()
            photographs(folder, options.images)
        spec = DatasetSpec(name="photographs", layout="flat", root=folder, limit=options.images)
        index = build_index(spec)
        entry = ModelEntry.from_mapping("vit", {"source": "timm", "name": options.name})
        backbone = load_backbone(entry)
        backbone.module.to(device)
        view = SquareView(backbone.image_size, entry.crop_fraction, backbone.interpolation)
        rows = [range(a, min(a + BATCH, len(index))) for a in range(0, len(index), BATCH)]

        def decoded(workers: int) -> Iterator[Tensor]:
            groups = load_batches(index, folder, view, rows, workers=workers)
            return (batch for (batch,) in groups)

        memory = torch.cat(list(decoded(1)))

        def ours(*taps: str, preloaded: bool) -> None:
            def batches(plan: Schedule) -> Iterator[Tensor]:
                return (memory[b.start : b.stop] for b in plan.all_batches)

            out = scratch / "store.zarr"
            shutil.rmtree(out, ignore_errors=True)
            settings = Settings(
                taps=taps, batch_size=BATCH, device=str(device), precision=options.precision
            )
            extract(backbone, index, folder, out, settings, batches=batches if preloaded else None)

        @torch.inference_mode()
        def forward() -> None:
            with (
                matmul_precision(options.precision, device),
                autocast(options.precision, device),
            ):
                for b in rows:
                    images = memory[b.start : b.stop].to(device, non_blocking=True)
                    backbone.module(normalise(images, backbone.mean, backbone.std))
            if device.type == "cuda":
                torch.cuda.synchronize()

        def decode() -> None:
            workers = max(1, threads - 1 if device.type == "cuda" else threads)
            for _ in decoded(workers):
                pass

        def compare(taps: tuple[str, ...], *, preloaded: bool = True) -> Pair:
            return in_turn(lambda: ours(*taps, preloaded=preloaded), forward, rounds=options.rounds)

        features = ("cls", "spatial")
        summaries = (*features, "attention_summary")
        decoding = in_turn(decode, forward, rounds=options.rounds)
        slower = "forward" if decoding.speed > 1 else "decoding"
        print(f"{machine()}; {options.name}, {len(index)} images, {options.precision}\n")
        print("| what | ours | other | ours as fast (range) | target |")
        print("|---|---|---|---|---|")
        print(compare(features).row("cls + spatial against bare model(x)", ">= 0.90"))
        print(compare(summaries).row("... + attention summaries against bare model(x)", ">= 0.75"))
        print(decoding.row("(decode loop against bare model(x))", ""))
        if slower == "forward":
            both = compare(features, preloaded=False)
        else:
            both = in_turn(lambda: ours(*features, preloaded=False), decode, rounds=options.rounds)
        print(both.row(f"decoding included against the slower ({slower})", ">= 0.90"))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
