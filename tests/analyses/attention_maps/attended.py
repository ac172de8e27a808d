"""Stores of given attention: of random rows, or of a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.store.filled import Content
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.extraction.summary import summarise
from vitfeat.store.arrays import SUMMARY_GROUP, Geometry
from vitfeat.store.create import Rows

PATCH = 4


@dataclass(frozen=True)
class Attended(Content):
    """A store of some taps of (image, layer, head, query, key); other features are random."""

    attention: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    tokens: Tokens = field(default_factory=lambda: Tokens((1, 1)))
    labels: Sequence[int] = ()
    view: tuple[int, int] | None = None

    @property
    def rows(self) -> Rows:
        labels = np.array(self.labels, dtype=np.int64)
        names = {int(label): f"klasse {label} é" for label in labels if label >= 0}
        return replace(super().rows, label=labels, classes=names)

    @property
    def request(self) -> dict[str, Any]:
        size = self.view or tuple(PATCH * n for n in self.tokens.grid)
        return super().request | {"view": {"kind": "square", "size": list(size)}}

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = super().arrays()
        images, layers = self.attention.shape[:2]
        if "attention_summary" in self.taps:
            flat = torch.from_numpy(self.attention.reshape(-1, *self.attention.shape[2:]))
            summaries = summarise(flat, self.tokens.n_prefix, self.tokens.grid)
            for name, tensor in summaries.items():
                values = tensor.numpy().reshape(images, layers, *tensor.shape[1:])
                found[f"{SUMMARY_GROUP}/{name}"] = values
        if "attention" in self.taps:
            rows = list(self.kept.get("attention", range(images)))
            found["attention"] = self.attention[rows].astype(self.dtype)
        return found


def write_attended(
    path: Path,
    attention: NDArray[Any],
    tokens: Tokens,
    *,
    taps: tuple[str, ...] = ("attention_summary",),
    labels: Sequence[int] | None = None,
    **more: Any,
) -> Path:
    """Write a store in blocks of 4 images and return its path."""
    images, layers, heads = attention.shape[:3]
    geometry = Geometry(
        more.pop("layers", tuple(range(layers))),
        6,
        heads,
        tokens.grid,
        tokens.has_cls,
        tokens.n_registers,
    )
    content = Attended(
        geometry=geometry,
        taps=taps,
        dtype="float32",
        n_images=images,
        block=4,
        attention=attention,
        tokens=tokens,
        labels=[0] * images if labels is None else labels,
        **more,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content.write(path)
    return path


def random_attention(
    images: int, layers: int, heads: int, tokens: Tokens, *, null: bool = False
) -> NDArray[np.float32]:
    """Rows after a softmax; with ``null`` some have nothing on spatial keys, one head all."""
    generator = np.random.default_rng(images + heads)
    n, prefix = tokens.n_tokens, tokens.n_prefix
    scores = np.exp(2 * generator.normal(size=(images, layers, heads, n, n)))
    if null:
        scores[::2, 0, 0, prefix::2, prefix:] = 0
        scores[-1, -1, -1, prefix:, prefix:] = 0
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)
