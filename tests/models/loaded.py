"""How tests load published files and hold what they gave to a reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from tests.models.published import SMALL, SMALL_CLIP, Size
from tests.models.reference_vit import Seen
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.taps import collect

#: open_clip's name for CLIP of the small size, inside :func:`small_open_clip`.
SMALL_OPEN_CLIP = "vitfeat-small-quickgelu"


def images(size: Size, count: int = 2, grid: tuple[int, int] | None = None) -> Tensor:
    """Give noise of the size's own grid, or of another (rows, columns)."""
    rows, columns = grid or (size.grid, size.grid)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, rows * size.patch, columns * size.patch, generator=generator)


def entry_of(path: str, name: str, family: str, size: Size = SMALL, **changes: Any) -> ModelEntry:
    """Give the entry of a local file of one size; `args` add to the size's own."""
    args = {**size.args, **changes.pop("args", {})}
    fields = {
        "source": "checkpoint",
        "name": name,
        "family": family,
        "checkpoint": path,
        "args": args,
        "image_size": size.image_size,
        "normalisation": "half",
        **changes,
    }
    return ModelEntry.from_mapping("m", fields)


def assert_sees(backbone: Backbone, seen: Seen, batch: Tensor) -> None:
    """Hold a model to a reference, block by block.

    Tokens within 1e-4 of the block's largest entry, attention within 1e-5. Attention that is nearly
    uniform would hide what is wrong with it.
    """
    found = collect(backbone, batch)
    assert found["tokens"].shape == seen.tokens.shape
    assert found["attention"].shape == seen.attention.shape
    uniform = 1 / seen.attention.shape[-1]
    for layer in range(backbone.depth):
        tokens, expected = found["tokens"][:, layer], seen.tokens[:, layer]
        largest = expected.abs().max()
        assert (tokens - expected).abs().max() <= 1e-4 * largest, f"tokens of layer {layer}"
        attention, expected = found["attention"][:, layer], seen.attention[:, layer]
        assert (attention - expected).abs().max() <= 1e-5, f"attention of layer {layer}"
        # Half the summed difference: 0 for uniform rows, nearly 1 for rows of a single key.
        distance = (expected - uniform).abs().sum(-1).mean((0, 2)) / 2
        assert (distance > 0.2).all(), f"attention of layer {layer} is nearly uniform"


@contextmanager
def small_open_clip(folder: Path) -> Iterator[None]:
    """Tell open_clip of an architecture of the small size, as its users do of their own."""
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SMALL_CLIP.image_size,
            "layers": SMALL_CLIP.depth,
            "width": SMALL_CLIP.width,
            "patch_size": SMALL_CLIP.patch,
        },
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 1, "layers": 1},
    }
    (folder / f"{SMALL_OPEN_CLIP}.json").write_text(json.dumps(config), "utf-8")
    factory = open_clip.factory
    paths, configs = list(factory._MODEL_CONFIG_PATHS), dict(factory._MODEL_CONFIGS)
    open_clip.add_model_config(folder)
    try:
        yield
    finally:
        factory._MODEL_CONFIG_PATHS[:] = paths
        factory._MODEL_CONFIGS.clear()
        factory._MODEL_CONFIGS.update(configs)
