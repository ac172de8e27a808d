"""What it costs that files are synced: extractions to a disk, with and without, in turn.

python -m benchmarks.syncing [--images 300] [--rounds 5] [--folder PHOTOS]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.extraction import photographs
from benchmarks.timing import in_turn, machine
from vitfeat import files
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone

TINY = {
    "image_size": 32,
    "args": {"patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2},
}

CASES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("ViT-S/16, CLS and spatial tokens", {}, ("cls", "spatial")),
    (
        "2 layers of 64 channels at 32 pixels, ten taps",
        TINY,
        (
            *("cls", "spatial", "attention", "attention_summary", "attention_mean"),
            *("attention_centre", "block_input", "attn_branch", "mlp_branch", "residual_norms"),
        ),
    ),
]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="photographs; made up if not given")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        folder = options.folder
        if folder is None:
            folder = scratch / "photographs"
            folder.mkdir()
            photographs(folder, options.images)
        spec = DatasetSpec(name="photographs", layout="flat", root=folder, limit=options.images)
        index = build_index(spec)
        print(f"{machine()}; {len(index)} images\n")
        print("| extraction | files | synced | not synced | cost (range) | target |")
        print("|---|---|---|---|---|---|")
        for name, sizes, taps in CASES:
            entry = ModelEntry.from_mapping(
                "vit", {"source": "timm", "name": "vit_small_patch16_224", **sizes}
            )
            backbone = load_backbone(entry)
            out = scratch / "store.zarr"
            settings = Settings(taps=taps, batch_size=32, device="cpu")

            def synced() -> None:
                shutil.rmtree(out, ignore_errors=True)  # noqa: B023
                extract(backbone, index, folder, out, settings)  # noqa: B023

            def not_synced() -> None:
                with patch.object(files, "_sync", lambda _: None):
                    synced()

            pair = in_turn(synced, not_synced, rounds=options.rounds)
            costs = sorted(a / b - 1 for a, b in zip(pair.ours, pair.other, strict=True))
            n_files = sum(path.is_file() for path in out.rglob("*"))
            print(
                f"| {name} | {n_files} | {statistics.median(pair.ours):.2f} s | "
                f"{statistics.median(pair.other):.2f} s | {statistics.median(costs):.1%} "
                f"({costs[0]:.1%} to {costs[-1]:.1%}) | 5 % |"
            )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
