"""What a family fixes that no tensor's shape tells, in one table; known without torch.

A family is the supervision that an entry names. What the code that its models were published with
does for all of them stands here; what differs between its models is the architecture's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """What the code of a family's models fixes."""

    #: How position embeddings are fitted to another grid (:mod:`vitfeat.models.positions`); the
    #: library's way if None.
    positions: str | None = None
    #: How training images were normalised, by a name of
    #: :data:`vitfeat.models.entry.NORMALISATIONS`; None where its models differ.
    normalisation: str | None = None
    #: Attention heads by width, where they are not those of timm's architecture of that width.
    heads: Mapping[int, int] = field(default_factory=dict)


FAMILIES: Mapping[str, Family] = {
    # Trained by many recipes: timm's AugReg by halves, DeiT's and torchvision's by ImageNet's.
    "supervised": Family(),
    "clip": Family(normalisation="clip"),
    "dino": Family("dino", "imagenet"),
    "ibot": Family("dino", "imagenet"),
    # Its ViT-S has 12 heads of 32 channels (Chen et al. 2021, table 1); timm's has 6 of 64.
    "moco": Family("moco", "imagenet", {384: 12}),
    "mae": Family("mae", "imagenet"),
    "simmim": Family("beit", "imagenet"),
    "beit": Family("beit", "half"),
    # Pretrained with --imagenet_default_mean_and_std, which BEiT was not.
    "beitv2": Family("beit", "imagenet"),
    "dinov2": Family("dino", "imagenet"),
    # DINOv2 came to antialias with its registers, which is timm's way.
    "dinov2-reg": Family(normalisation="imagenet"),
    "dinov3": Family(normalisation="imagenet"),
    "siglip": Family("google", "half"),
    "siglip2": Family("google", "half"),
    "eva": Family("mae", "clip"),
    "eva02": Family("mae", "clip"),
    "deit": Family("mae", "imagenet"),
    "deit3": Family("mae", "imagenet"),
    "ijepa": Family("mae", "imagenet"),
}

# Other spellings, in small letters and digits alone.
_ALSO = {"mocov3": "moco", "beit2": "beitv2", "deitiii": "deit3"}
_KEYS = {**_ALSO, **{re.sub(r"[^a-z0-9]", "", key): key for key in FAMILIES}}

# Families whose files have the same keys as those of the one that keys tell.
_MAY_BE = {
    "dino": {"dino", "ibot"},
    "dinov2": {"dinov2", "dinov2-reg"},
    "beit": {"beit", "beitv2", "simmim"},
}


def family_key(name: str) -> str | None:
    """Return a family's key in :data:`FAMILIES`: ``moco`` for ``MoCo-v3``; None if it has none."""
    return _KEYS.get(_folded(name))


def family_within(name: str) -> str | None:
    """Return the known family that another's name contains: ``moco`` for ``moco-v3-small``."""
    within = [known for known in _KEYS if known in _folded(name)]
    return _KEYS[max(within, key=len)] if within else None


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def contradict(told: str, named: str | None) -> bool:
    """Whether a file whose keys tell one family cannot be of the known one that its entry names."""
    return named is not None and named not in _MAY_BE.get(told, {told})
