"""Stores of random numbers, written through the writer alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.store.layout import ATTRIBUTE, Layout, plan_layout, shard_key
from vitfeat.store.layout import TAPS as EVERY_TAP
from vitfeat.store.paths import Url
from vitfeat.store.provenance import digest
from vitfeat.store.writer import open_writer

GEOMETRY = Geometry(layers=(1, 3, 4), width=8, heads=2, grid=(2, 3), has_cls=True, n_registers=2)
TAPS = ("cls", "registers", "spatial", "attention", "attention_summary")
#: Taps of one entry an image, or of none of some images.
ONE_AN_IMAGE = tuple(tap for tap in EVERY_TAP if tap != "regions")
N_IMAGES = 22
BLOCK = 8


@dataclass(frozen=True)
class Content:
    """What goes into a store: by default 22 images in blocks of 8, so that the last is short."""

    geometry: Geometry = GEOMETRY
    taps: tuple[str, ...] = TAPS
    dtype: str = "float16"
    n_images: int = N_IMAGES
    block: int = BLOCK
    #: Images of a shard at most: by default those of a block.
    span: int = BLOCK
    seed: int = 0
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    starts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    grid_shapes: NDArray[np.int64] | None = None
    regions: NDArray[np.int64] | None = None

    @property
    def layout(self) -> Layout:
        planned = plan_layout(
            self.geometry, self.taps, self.n_images, self.dtype, self.kept, self.starts
        )
        return replace(planned, block=self.block, span=self.span)

    @property
    def rows(self) -> Rows:
        return Rows(
            image_id=[f"class {i % 3}/ï{i:03d}.png" for i in range(self.n_images)],
            label=np.arange(self.n_images, dtype=np.int64) % 3 - 1,
            classes={0: "class 0", 1: "class 1"},
            skipped=[("broken.png", "no image")],
            grid_shapes=self.grid_shapes,
            regions=self.regions,
        )

    @property
    def request(self) -> dict[str, Any]:
        return {
            "model": {
                "source": "timm",
                "name": "vit",
                "args": {"depth": 5},
                "weights_sha256": "ab" * 32,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "data": {"fingerprint": "cd" * 32, "n_images": self.n_images},
            "view": self.view,
            "precision": "fp32",
            "dtype": self.dtype,
            "taps": list(self.taps),
            "layers": list(self.geometry.layers),
            "seed": self.seed,
            **(
                {"limits": {t: list(map(str, r)) for t, r in self.kept.items()}}
                if self.kept
                else {}
            ),
        }

    @property
    def view(self) -> dict[str, Any]:
        if self.geometry.ragged:
            return {"kind": "dense", "side": "short", "pixels": 32, "patch": [4, 4], "window": None}
        return {"kind": "square", "size": [32, 32], "crop_fraction": 0.875}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Make the numbers: the same ones every time."""
        generator = np.random.default_rng(self.seed)
        return {
            a.name: generator.standard_normal((self.layout.length(a), *a.shape)).astype(a.dtype)
            for a in self.layout.arrays
        }

    def part(self, rows: range) -> dict[str, NDArray[Any]]:
        """Return what the arrays hold of some consecutive rows."""
        arrays = self.arrays()
        return {
            a.name: arrays[a.name][
                [i for i, row in enumerate(a.rows or range(self.n_images)) if row in rows]
            ]
            for a in self.layout.arrays
        }

    def write(
        self,
        path: Path | Url,
        blocks: Iterable[int] | None = None,
        *,
        seal: bool = True,
        replacing: bool = False,
    ) -> tuple[list[int], dict[str, Any] | None]:
        """Write the blocks that are missing, or some of them; tell which were missing."""
        layout = self.layout
        with open_writer(
            path, layout, self.geometry, self.rows, self.request, "m", replace=replacing
        ) as writer:
            missing = writer.missing_blocks()
            for block in missing if blocks is None else blocks:
                rows = layout.rows(block)
                writer.write_block(block, self.part(rows), forward_images=len(rows))
            return missing, writer.seal() if seal else None


def shard_of(store: Path, name: str, block: int = 0) -> Path:
    """Return the file of one shard of an array, or of a whole coordinate."""
    metadata = json.loads((store / name / "zarr.json").read_text())
    return store / name / shard_key(block, len(metadata["shape"]))


def flip(path: Path, place: int = 0, bit: int = 0) -> None:
    """Turn one bit of a file; negative places count from its end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def resealed(store: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a store's attributes as another vitfeat would have written them."""
    path = store / "zarr.json"
    root = json.loads(path.read_text("utf-8"))
    attributes = root["attributes"][ATTRIBUTE]
    change(attributes)
    attributes["fingerprint"] = digest(attributes["request"])
    del attributes["sealed"]["sha256"]
    attributes["sealed"]["sha256"] = digest(root)
    path.write_text(json.dumps(root), "utf-8")


def files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copied(store: Path, to: Path) -> Path:
    shutil.copytree(store, to)
    return to
