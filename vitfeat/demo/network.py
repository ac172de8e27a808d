"""The demo's architecture, one for all: a ViT with 64 patches, six blocks and 1.2 MB of weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from vitfeat.errors import ModelError

TRAINED = ("supervised", "clip", "dino", "moco", "mae", "beit")
NAMES = (*TRAINED, "random")

# Per channel, applied to values in 0..1.
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)

WEIGHTS = Path(__file__).parent / "weights"
UNTRAINED_SEED = 0


def build(seed: int) -> VisionTransformer:
    """Build timm's ViT (Dosovitskiy et al., 2021), untrained, in evaluation mode.

    32x32 RGB in, patches of 4x4 (8x8 = 64 tokens and CLS), width 64, 6 blocks of 4 heads, MLP ratio
    4, no classifier. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(
            img_size=32,
            patch_size=4,
            embed_dim=64,
            depth=6,
            num_heads=4,
            mlp_ratio=4.0,
            num_classes=0,
            class_token=True,
            global_pool="token",
            # Xavier initialisation: timm's default standard deviation of 0.02 suits widths of
            # several hundred and all but silences the blocks at a width of 64.
            weight_init="jax",
        ).eval()


def load(name: str, size: tuple[int, int] | None = None) -> VisionTransformer:
    """Load a shipped model, or build the untrained one, in evaluation mode.

    `size` is height and width of its input, 32 x 32 if not given; positions are fitted to another
    by bicubic interpolation with antialiasing.
    """
    if name not in NAMES:
        raise ModelError(f"no demo model {name!r}: use one of {', '.join(NAMES)}")
    network = build(UNTRAINED_SEED)
    if name == "random":
        return _resized(network, size)
    path = WEIGHTS / f"{name}.safetensors"
    try:
        network.load_state_dict(load_file(path), strict=True)
    except Exception as error:
        # safetensors and torch raise types of their own for damaged and for foreign files.
        raise ModelError(
            f"cannot load the demo model {name!r} from {path}: {error}: reinstall vitfeat"
        ) from error
    return _resized(network, size)


def _resized(network: VisionTransformer, size: tuple[int, int] | None) -> VisionTransformer:
    if size is not None:
        network.set_input_size(img_size=size)
    return network
