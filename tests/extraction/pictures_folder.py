"""A folder of images, a small model, and what a plain forward pass makes of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from tests.models.shrunk import stir, timm_entry
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.loading import load_backbone
from vitfeat.store.layout import TAPS

N_IMAGES = 22
#: Taps that need nothing but the images.
UNANNOTATED = tuple(tap for tap in TAPS if tap != "regions")
#: All of it, a few images at a time.
ALL = Settings(taps=UNANNOTATED, batch_size=5, device="cpu", threads=2, workers=0)
#: Black all over, so that a hook can tell it from the others.
BLACK = 13


def write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(N_IMAGES):
        height, width = (int(v) for v in generator.integers(70, 130, 2))
        # Large squares of colour under noise, so that images differ in more than their noise.
        pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(pixels).resize((width, height))).astype(np.int64)
        picture += generator.integers(-20, 21, picture.shape)
        if number == BLACK:
            picture[:] = 0
        path = folder / f"class{number // 11}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)


def make_index(folder: Path) -> Index:
    spec = DatasetSpec(name="d", layout="folder", root=folder)
    return build_index(spec)


def make_backbone(kind: str = "registers") -> Backbone:
    backbone = load_backbone(timm_entry(kind))
    stir(backbone.module, seed=5)
    return backbone


def seen_images(backbone: Backbone, index: Index, root: Path) -> Tensor:
    """Transform the images as torchvision does."""
    side = backbone.image_size[0]
    to_tensor = transforms.Compose(
        [
            transforms.Resize(
                round(side / 0.875), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(backbone.mean, backbone.std),
        ]
    )
    return torch.stack([to_tensor(Image.open(root / i).convert("RGB")) for i in index.image_id])


@torch.no_grad()
def plain_forward(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """Read (image, layer, token, channel) and the attention off an untapped, unfused pass."""
    tokens: list[Tensor] = []
    attention: list[Tensor] = []
    handles = []
    for block in backbone.blocks:
        attn: Any = block.attn
        attn.fused_attn = False
        handles += [
            block.register_forward_hook(lambda _m, _a, out: tokens.append(out)),
            attn.attn_drop.register_forward_pre_hook(lambda _m, a: attention.append(a[0])),
        ]
    backbone.forward(images)
    for handle, block in zip(handles, [b for b in backbone.blocks for _ in range(2)], strict=True):
        handle.remove()
        block.attn.fused_attn = True  # type: ignore[union-attr]
    return torch.stack(tokens, 1), torch.stack(attention, 1)


class Watch:
    """Counts what goes through a model while it is open."""

    def __init__(self, backbone: Backbone, images: Tensor) -> None:
        self._backbone = backbone
        self._known = images
        self._lock = threading.Lock()
        self._seen: list[Tensor] = []

    def __enter__(self) -> Watch:
        module: Any = self._backbone.module

        def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            with self._lock:
                self._seen.append(args[0].clone())

        self._handle = module.patch_embed.register_forward_pre_hook(note)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    @property
    def rows(self) -> list[int]:
        """Which images went through, in order; what is none of them (the probe) is left out."""
        found = []
        for image in (i for batch in self._seen for i in batch):
            match = (self._known - image).abs().amax((1, 2, 3)) < 1e-4
            found += match.nonzero().flatten().tolist()
        return sorted(found)


def spoil_black_images(backbone: Backbone, value: float, token: slice, layer: int = 1) -> list[Any]:
    """Set tokens of a layer to a value for images that are black all over."""
    module: Any = backbone.module
    local = threading.local()

    def look(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        local.black = args[0].flatten(2).std(-1).amax(1) == 0

    def spoil(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[local.black.nonzero().flatten(), token] = value
        return output

    return [
        module.patch_embed.register_forward_pre_hook(look),
        backbone.blocks[layer].register_forward_hook(spoil),
    ]
