"""Peak memory of an extraction at 1,000 and at 4,000 images.

python -m benchmarks.memory [--images 1000 4000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import machine


def child(folder: Path, count: int, out: Path) -> None:
    """Extract and print the peak of this process and of its largest worker, in MiB."""
    from vitfeat.data.scan import build_index
    from vitfeat.data.spec import DatasetSpec
    from vitfeat.extraction.run import extract
    from vitfeat.extraction.settings import Settings
    from vitfeat.models.entry import ModelEntry
    from vitfeat.models.loading import load_backbone

    index = build_index(DatasetSpec(name="d", layout="flat", root=folder, limit=count))
    entry = {"source": "timm", "name": "vit_tiny_patch16_224"}
    backbone = load_backbone(ModelEntry.from_mapping("tiny", entry))
    taps = ("cls", "spatial", "attention_summary")
    extract(backbone, index, folder, out, Settings(taps=taps, device="cpu", workers=1))
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(*peaks)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs=2, default=[1000, 4000])
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), int(options.child[1]), Path(options.child[2]))
        return
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        generator = np.random.default_rng(0)
        for i in range(max(options.images)):
            pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:05d}.jpg")
        peaks = []
        for count in options.images:
            command = [sys.executable, "-m", "benchmarks.memory", "--child", str(folder)]
            done = subprocess.run(
                [*command, str(count), f"{scratch}/{count}.zarr"],
                capture_output=True,
                text=True,
                check=True,
            )
            peaks.append([float(v) for v in done.stdout.split()])
    print(machine() + "\n")
    print("| process | " + " | ".join(f"{n:,} images" for n in options.images) + " | ratio |")
    print("|---|---|---|---|")
    for name, (few, many) in zip(("extraction", "decoding"), zip(*peaks, strict=True), strict=True):
        print(f"| {name} | {few:.0f} MiB | {many:.0f} MiB | {many / few:.3f} |")


if __name__ == "__main__":
    main()
