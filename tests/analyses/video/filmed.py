"""Small videos in the layout of DAVIS-2017, and stores of chosen features of their frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.store.filled import Content
from vitfeat.data.annotations import FrameRow
from vitfeat.data.davis import frames
from vitfeat.data.index import Index
from vitfeat.data.masks import write_mask
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import DenseView, PaddedView, SquareView, View
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.tables import write_table

PATCH = 4
LAYERS = (0, 2, 5)

# Of a frame: sequence, number, layer and grid.
Features = Callable[[str, int, int, tuple[int, int]], NDArray[Any]]


@dataclass(frozen=True)
class Filmed(Content):
    """A store of spatial tokens, an array (layer, Y, X, channel) each frame."""

    tokens: tuple[NDArray[Any], ...] = ()
    images: Index | None = None
    shown: View = field(default_factory=lambda: SquareView((32, 32), 1.0))

    @property
    def rows(self) -> Rows:
        assert self.images is not None
        return Rows(
            image_id=self.images.image_id,
            label=np.zeros(self.n_images, dtype=np.int64),
            classes={0: "all"},
            skipped=[],
            grid_shapes=self.grid_shapes,
        )

    @property
    def request(self) -> dict[str, Any]:
        assert self.images is not None
        data = {"fingerprint": self.images.fingerprint, "n_images": self.n_images}
        return super().request | {"data": data}

    @property
    def view(self) -> dict[str, Any]:
        return self.shown.describe()

    def arrays(self) -> dict[str, NDArray[Any]]:
        if self.geometry.ragged:
            flat = [t.reshape(len(t), -1, t.shape[-1]).swapaxes(0, 1) for t in self.tokens]
            return {"spatial": np.concatenate(flat).astype(self.dtype)}
        rows = list(self.kept.get("spatial", range(self.n_images)))
        spatial = np.stack([self.tokens[row] for row in rows])
        return super().arrays() | {"spatial": spatial.astype(self.dtype)}


@dataclass(frozen=True)
class Films:
    """A dataset on disk."""

    root: Path
    index: Index

    @property
    def frames_path(self) -> Path:
        return self.root / "frames.csv"

    @property
    def index_path(self) -> Path:
        return self.root / "index.csv"

    def arguments(self) -> tuple[Path, Path, Path]:
        return self.frames_path, self.index_path, self.root


def write_films(root: Path, films: Mapping[str, Sequence[NDArray[np.uint8] | None]]) -> Films:
    """Write the frames of sequences with their masks; None is a frame without, as large."""
    for name, masks in films.items():
        size = next(mask.shape for mask in masks if mask is not None)
        for number, mask in enumerate(masks):
            frame = root / f"JPEGImages/480p/{name}/{number:05d}.jpg"
            frame.parent.mkdir(parents=True, exist_ok=True)
            # Every frame is another file.
            shade = (40 * number + len(name)) % 256
            Image.new("RGB", size[::-1], (shade, 90, 30)).save(frame)
            if mask is not None:
                write_mask(root / f"Annotations/480p/{name}/{number:05d}.png", mask)
    sets = root / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("".join(f"{name}\n" for name in films))
    return indexed(root)


def indexed(root: Path, **settings: Any) -> Films:
    """Make the index and the table of frames."""
    spec = DatasetSpec(name="davis", layout="davis", root=root, split="val", **settings)
    index = build_index(spec)
    found = Films(root, index)
    index.write(found.index_path)
    write_table(found.frames_path, FrameRow, frames(spec, index, []))
    return found


def view_named(kind: str) -> View:
    if kind == "dense":
        return DenseView("short", 24, (PATCH, PATCH))
    return PaddedView((32, 32)) if kind == "padded" else SquareView((32, 32), 1.0)


def write_store(films: Films, features: Features, view: View, path: Path, **more: Any) -> Path:
    """Write a store of the features of every frame."""
    index, tokens = films.index, []
    for row, image_id in enumerate(index.image_id):
        size = view.size_of(int(index.width[row]), int(index.height[row]))
        grid = (size[0] // PATCH, size[1] // PATCH)
        sequence, frame = Path(image_id).parts[-2:]
        number = int(Path(frame).stem)
        tokens.append(np.stack([features(sequence, number, layer, grid) for layer in LAYERS]))
    ragged = isinstance(view, DenseView)
    shapes = np.array([t.shape[1:3] for t in tokens])
    content = Filmed(
        geometry=Geometry(
            LAYERS, tokens[0].shape[-1], 2, tuple(shapes[0].tolist()), False, 0, ragged=ragged
        ),
        taps=("spatial",),
        dtype="float32",
        n_images=len(index),
        block=4,
        tokens=tuple(tokens),
        images=index,
        shown=view,
        grid_shapes=shapes if ragged else None,
        starts={"spatial": (0, *np.cumsum(shapes.prod(1)).tolist())} if ragged else {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(content, **more).write(path)
    return path
