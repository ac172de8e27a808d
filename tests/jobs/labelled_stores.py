"""Stores of features that depend on classes, whose labels and class names are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.store.filled import GEOMETRY, Content
from vitfeat.final_norm import FinalNorm
from vitfeat.store.create import Rows
from vitfeat.store.layout import Layout, plan_layout
from vitfeat.store.writer import open_writer

NORM = FinalNorm(
    "layer",
    np.linspace(0.5, 2, 8, dtype=np.float32),
    np.linspace(-1, 1, 8, dtype=np.float32),
    1e-6,
)


@dataclass(frozen=True)
class Classes(Content):
    """Images of named classes, None without a label; numbers of classes are a dataset's own."""

    taps: tuple[str, ...] = ("cls", "spatial")
    names: tuple[str | None, ...] = ()
    order: tuple[str, ...] = ()
    """Names in the order of their numbers."""
    images: str = "cd"
    request_more: dict[str, Any] = field(default_factory=dict)
    final_norm: FinalNorm | None = NORM

    @property
    def layout(self) -> Layout:
        return plan_layout(self.geometry, self.taps, self.n_images, self.dtype, self.kept)

    @property
    def labels(self) -> np.ndarray:
        return np.array([-1 if n is None else self.order.index(n) for n in self.names])

    @property
    def rows(self) -> Rows:
        return Rows(
            image_id=[f"{i}.png" for i in range(self.n_images)],
            label=self.labels.astype(np.int64),
            classes={i: n for i, n in enumerate(self.order) if n in self.names},
            skipped=[],
        )

    @property
    def request(self) -> dict[str, Any]:
        data = {"fingerprint": self.images * 32, "n_images": self.n_images}
        return super().request | {"data": data} | self.request_more

    def arrays(self) -> dict[str, np.ndarray]:
        """Random numbers, moved by class: to each name the same way in every store."""
        found = super().arrays()
        # A mean of six tokens has less noise: the same would make it too easy.
        for array, size in (("cls", 0.6), ("spatial", 0.25)):
            for entry, row in enumerate(self.kept.get(array, range(self.n_images))):
                name = self.names[row]
                if name is not None and array in found:
                    centre = np.random.default_rng(list(name.encode())).standard_normal(8)
                    found[array][entry] += (size * centre).astype(self.dtype)
        return found

    def features(self, kind: str, position: int) -> np.ndarray:
        """From the definitions: float64 (image, channel)."""
        if kind == "mean":
            tokens = self.arrays()["spatial"][:, position].astype(np.float64)
            return tokens.mean(axis=(1, 2))
        return self.arrays()["cls"][:, position].astype(np.float64)

    def write_to(self, path: Path) -> Path:
        layout = self.layout
        with open_writer(
            path,
            layout,
            self.geometry,
            self.rows,
            self.request,
            "m",
            final_norm=self.final_norm,
        ) as writer:
            for block in writer.missing_blocks():
                rows = layout.rows(block)
                writer.write_block(block, self.part(rows), forward_images=len(rows))
            writer.seal()
        return path


def classes(
    names: Sequence[str | None], order: Sequence[str], *, seed: int, images: str, **more: Any
) -> Classes:
    return Classes(
        names=tuple(names),
        order=tuple(order),
        n_images=len(names),
        seed=seed,
        images=images,
        **more,
    )


def names(order: str, n: int, seed: int) -> list[str | None]:
    return [str(v) for v in np.random.default_rng(seed).choice(list(order), n)]


TRAIN = classes(names("abcdef", 90, 0), "fedcba", seed=1, images="ab")
TEST = classes(names("abcdef", 50, 1), "abcdef", seed=2, images="cd")

NO_CLS = {
    "geometry": replace(GEOMETRY, has_cls=False, n_registers=0),
    "taps": ("spatial",),
}
