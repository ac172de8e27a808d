"""What an extraction must know of a network that a library built: a :class:`Backbone` from it.

What can be described is a plain ViT: one stack of blocks, all over the same tokens, which are some
prefix tokens (CLS, registers) and then one grid, row by row. Anything else is refused here, with
the reason: first by how the network is built, then by what arrives at its first block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitfeat.errors import ModelError
from vitfeat.final_norm import FinalNorm
from vitfeat.models.backbone import Backbone
from vitfeat.models.blocks import attention_parts
from vitfeat.models.entry import ModelEntry
from vitfeat.text import plural

# Parameters (1, n, channel) that timm puts before the grid, in this order.
_PREFIX = ("cls_token", "dist_token", "reg_token")

# Norms behind the last block, by name: whether they are applied to pooled tokens. timm's own pooled
# heads have `fc_norm` in the place of `norm`, open_clip's towers `ln_post`.
_NORMS = {"norm": False, "fc_norm": True, "ln_post": False}


class _NotPlainError(Exception):
    """Why a network is no plain ViT."""


def from_timm(
    entry: ModelEntry,
    model: Any,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    interpolation: str,
) -> Backbone:
    """Describe a timm model on the CPU, for which images are prepared so, and set it to evaluation.

    The distillation token of DeiT counts as a register: it is a prefix token that is not CLS.
    """
    model.eval()
    try:
        # A classifier around an encoder has the blocks inside.
        trunk = model if hasattr(model, "blocks") else getattr(model, "encoder", model)
        blocks = _one_stack(trunk)
        heads = _heads(blocks)
        embedding = _embedding(trunk)
        has_cls, n_prefix = _prefix(trunk)
        image_size = _image_size(entry, model, embedding)
        backbone = Backbone(
            entry=entry,
            module=model,
            forward=trunk.forward_features,
            blocks=blocks,
            image_size=image_size,
            patch_size=_patch_size(embedding),
            grid=_grid(embedding, image_size),
            width=int(trunk.embed_dim),
            heads=heads,
            has_cls=has_cls,
            n_prefix=n_prefix,
            mean=tuple(mean),
            std=tuple(std),
            # "random" is timm's word for training-time augmentation, not an evaluation setting.
            interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
            final_norm=_final_norm(trunk),
        )
        # Behind convolutions a token answers to pixels far from its patch, too.
        _check_tokens(backbone, local=not hasattr(embedding, "backbone"))
    except _NotPlainError as reason:
        raise ModelError(
            f"model {entry.id}: {type(model).__name__} ({entry.name}) is not a plain ViT: {reason}"
        ) from reason
    return backbone


def from_open_clip(entry: ModelEntry, visual: Any) -> Backbone:
    """Describe the image tower of an open_clip model, and set it to evaluation."""
    mean, std = entry.normalisation_values() or (visual.image_mean, visual.image_std)
    if hasattr(visual, "trunk"):
        return from_timm(entry, visual.trunk, mean=mean, std=std, interpolation="bicubic")
    visual.eval()
    try:
        transformer: Any = getattr(visual, "transformer", None)
        if not hasattr(transformer, "resblocks"):
            raise _NotPlainError("it has no stack of transformer blocks")
        blocks = list(transformer.resblocks)
        backbone = Backbone(
            entry=entry,
            module=visual,
            forward=visual,
            blocks=blocks,
            image_size=visual.image_size,
            patch_size=visual.patch_size,
            grid=visual.grid_size,
            width=transformer.width,
            heads=_heads(blocks),
            has_cls=True,
            n_prefix=1,
            mean=tuple(mean),
            std=tuple(std),
            batch_first=bool(transformer.batch_first),
            final_norm=_final_norm(visual),
        )
        _check_tokens(backbone, local=True)
    except _NotPlainError as reason:
        raise ModelError(
            f"model {entry.id}: the image tower of {entry.name} ({type(visual).__name__}) is not "
            f"a plain ViT: {reason}"
        ) from reason
    return backbone


def _final_norm(model: Any) -> FinalNorm | None:
    norms = (_norm(getattr(model, name, None), pooled) for name, pooled in _NORMS.items())
    return next((norm for norm in norms if norm is not None), None)


def _norm(module: Any, pooled: bool) -> FinalNorm | None:
    is_rms = isinstance(module, nn.Module) and "rmsnorm" in type(module).__name__.lower()
    if not (isinstance(module, nn.LayerNorm) or is_rms):
        return None
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1:
        return None
    scale = weight.detach().float().cpu().numpy().copy()
    shift = np.zeros_like(scale) if bias is None else bias.detach().float().cpu().numpy().copy()
    eps = getattr(module, "eps", None)
    # PyTorch's own RMSNorm takes the type's resolution where no epsilon is given.
    eps = float(torch.finfo(torch.float32).eps) if eps is None else float(eps)
    return FinalNorm("rms" if is_rms else "layer", scale, shift, eps, pooled)


def _one_stack(model: Any) -> list[nn.Module]:
    """Return the blocks of a network that has one stack of them over the same tokens."""
    strides = _strides(model)
    if len(strides) > 1:
        raise _NotPlainError(
            f"its layers see grids of different sizes (one token for {_words(strides)} pixels)"
        )
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        raise _NotPlainError("it has no one stack of blocks")
    windows = {int(w) for b in blocks if isinstance(w := getattr(b, "window_size", 0), int) and w}
    if windows:
        raise _NotPlainError(f"its blocks attend within windows of {_words(windows)} tokens")
    return list(blocks)


def _strides(model: Any) -> set[int]:
    """Return the pixels between tokens, of every layer that timm tells features of."""
    info = getattr(model, "feature_info", None) or []
    told = [layer.get("reduction") or 0 for layer in getattr(info, "info", info)]
    return {int(max(t) if isinstance(t, list | tuple) else t) for t in told} - {0}


def _words(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _embedding(model: Any) -> Any:
    """Return the module that turns an image into the tokens of a grid."""
    for name in ("patch_embed", "embeds"):
        found = getattr(model, name, None)
        if hasattr(found, "patch_size"):
            return found
    raise _NotPlainError("it has no one embedding of patches")


def _prefix(model: Any) -> tuple[bool, int]:
    holders = [h for h in (model, getattr(model, "embeds", None)) if h is not None]
    counts = {
        name: sum(t.shape[1] for h in holders if (t := getattr(h, name, None)) is not None)
        for name in _PREFIX
    }
    n_prefix = sum(counts.values())
    told = getattr(model, "num_prefix_tokens", n_prefix)
    if told != n_prefix or counts["cls_token"] > 1:
        found = ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "none"
        raise _NotPlainError(f"it tells of {told} prefix tokens and has {found}")
    return bool(counts["cls_token"]), n_prefix


def _image_size(entry: ModelEntry, model: Any, embedding: Any) -> tuple[int, int]:
    """Return the input's height and width; of networks for any size, what is asked or published."""
    size: Any = getattr(embedding, "img_size", None)
    if size is None:
        published = getattr(model, "default_cfg", None) or {}
        own = published.get("input_size", ())[1:]
        size = entry.image_size or own
    if not size:
        raise _NotPlainError("nothing tells the size of its images; set image_size")
    return _pair(size)


def _pair(value: Any) -> tuple[int, int]:
    """Return a size that may be one number for both sides."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _patch_size(embedding: Any) -> tuple[int, int]:
    # Behind convolutions patches are counted in their pixels, which are larger than the image's.
    (height, width), ratio = (
        _pair(embedding.patch_size),
        _pair(getattr(embedding, "feature_ratio", 1)),
    )
    return height * ratio[0], width * ratio[1]


def _grid(embedding: Any, image_size: tuple[int, int]) -> tuple[int, int]:
    if hasattr(embedding, "dynamic_feat_size"):  # which knows of padding
        return _pair(embedding.dynamic_feat_size(image_size))
    (height, width), patch = image_size, _pair(embedding.patch_size)
    return height // patch[0], width // patch[1]


def _heads(blocks: Sequence[nn.Module]) -> int:
    found: set[int] = set()
    for layer, block in enumerate(blocks):
        parts = attention_parts(block)
        if not parts or not all(isinstance(getattr(p, "num_heads", None), int) for p in parts):
            raise _NotPlainError(
                f"layer {layer} ({type(block).__name__}) has no attention that vitfeat knows"
            )
        found.add(sum(part.num_heads for part in parts))  # type: ignore[misc]
    if len(found) > 1:
        raise _NotPlainError(f"its layers have different numbers of heads ({_words(found)})")
    return found.pop()


class _ArrivedError(Exception):
    """Ends a pass at the first block."""


@torch.no_grad()
def _check_tokens(backbone: Backbone, *, local: bool) -> None:
    """Hold what arrives at the first block to the description.

    Images that differ in one patch must differ in that patch's token, and most there where tokens
    are local, and never in the prefix. Only the embedding runs.
    """
    (rows, columns), (height, width) = backbone.grid, backbone.patch_size
    if not rows * columns:
        raise _NotPlainError(
            f"images of {backbone.image_size} pixels hold no patch of {backbone.patch_size}"
        )
    # The first patch would stand among the prefix if that stood elsewhere; the others tell a grid
    # from its transpose, its mirror images and its windows.
    corners = ((0, 0), (0, columns - 1), (rows - 1, 0))
    images = torch.zeros(1 + len(corners), 3, *backbone.image_size)
    generator = torch.Generator().manual_seed(0)
    for image, (row, column) in zip(images[1:], corners, strict=True):
        patch = image[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        patch.copy_(torch.randn(patch.shape, generator=generator))
    tokens = _arriving(backbone, images)
    expected = (len(images), backbone.n_tokens, backbone.width)
    if backbone.n_prefix and tuple(tokens.shape) == (expected[0], rows * columns, expected[2]):
        raise _NotPlainError(
            f"its first block gets the grid without the {plural(backbone.n_prefix, 'prefix token')}"
            ": not all blocks see the same tokens"
        )
    if tuple(tokens.shape) != expected:
        raise _NotPlainError(
            f"its first block gets {tuple(tokens.shape)}, not {expected}: {len(images)} images, "
            f"{backbone.n_prefix} prefix tokens and a grid of {rows} x {columns}, channels"
        )
    change = (tokens[1:] - tokens[:1]).abs().amax(-1)
    most = change.max()
    # A network of zeros answers to nothing, one of NaN to everything.
    if not (0 < most < torch.inf):
        return
    if (change[:, : backbone.n_prefix] > 1e-4 * most).any():
        raise _NotPlainError("the tokens before its grid change with the image")
    found = change[:, backbone.n_prefix :].argmax(1).tolist()
    for (row, column), position in zip(corners, found, strict=True):
        away = max(abs(position // columns - row), abs(position % columns - column))
        # One patch of tolerance: patches may overlap.
        if local and away > 1:
            raise _NotPlainError("its tokens do not stand in the order of its grid, row by row")


def _arriving(backbone: Backbone, images: Tensor) -> Tensor:
    """Return (image, token, channel) as it arrives at the first block."""
    arrived: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        arrived.append(args[0])
        raise _ArrivedError

    handle = backbone.blocks[0].register_forward_pre_hook(stop)
    try:
        backbone.forward(images)
    except _ArrivedError:
        return arrived[0] if backbone.batch_first else arrived[0].transpose(0, 1)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise _NotPlainError(
            f"it does not run on images of {backbone.image_size} pixels: {reason}"
        ) from error
    finally:
        handle.remove()
    raise _NotPlainError("its pass does not go through its blocks")
