"""What an extraction must know of a network that a library built: a :class:`Backbone` from it."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry


def from_timm(
    entry: ModelEntry,
    model: Any,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    interpolation: str,
) -> Backbone:
    """Describe a timm model.

    Parameters
    ----------
    entry
        What it was built from.
    model
        The network.
    mean, std, interpolation
        How images are prepared for it, where the entry does not say.

    Raises
    ------
    ModelError
        When it is no plain ViT.
    """
    patch_embed: Any = getattr(model, "patch_embed", None)
    blocks: Any = getattr(model, "blocks", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    if (
        not isinstance(blocks, nn.Sequential | nn.ModuleList)
        or prefix is None
        or not isinstance(getattr(patch_embed, "grid_size", None), tuple)
        # Blocks of parallel parts have no one attention.
        or not hasattr(getattr(blocks[0], "attn", None), "num_heads")
    ):
        raise ModelError(
            f"model {entry.id}: {type(model).__name__} ({entry.name}) is not a plain ViT: vitfeat "
            "needs one stack of blocks over one token grid (no windows, stages, parallel parts)"
        )
    first: Any = blocks[0]
    mean, std = entry.normalisation_values() or (mean, std)
    return Backbone(
        entry=entry,
        module=model,
        forward=model.forward_features,
        blocks=list(blocks),
        image_size=patch_embed.img_size,
        patch_size=patch_embed.patch_size,
        grid=patch_embed.grid_size,
        width=int(model.embed_dim),
        heads=int(first.attn.num_heads),
        has_cls=getattr(model, "cls_token", None) is not None,
        n_prefix=int(prefix),
        mean=tuple(mean),
        std=tuple(std),
        # "random" is timm's word for training-time augmentation, not an evaluation setting.
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
    )


def from_open_clip(entry: ModelEntry, visual: Any) -> Backbone:
    """Describe the image tower of an open_clip model.

    Raises
    ------
    ModelError
        When it is no plain ViT.
    """
    mean, std = entry.normalisation_values() or (visual.image_mean, visual.image_std)
    if hasattr(visual, "trunk"):
        return from_timm(entry, visual.trunk, mean=mean, std=std, interpolation="bicubic")
    transformer: Any = getattr(visual, "transformer", None)
    if not hasattr(transformer, "resblocks"):
        raise ModelError(
            f"model {entry.id}: the image tower of {entry.name} ({type(visual).__name__}) is not "
            "a plain ViT"
        )
    return Backbone(
        entry=entry,
        module=visual,
        forward=visual,
        blocks=list(transformer.resblocks),
        image_size=visual.image_size,
        patch_size=visual.patch_size,
        grid=visual.grid_size,
        width=transformer.width,
        heads=transformer.resblocks[0].attn.num_heads,
        has_cls=True,
        n_prefix=1,
        mean=tuple(mean),
        std=tuple(std),
        batch_first=bool(transformer.batch_first),
    )
