"""Sizes of a model guessed from its entry, without loading it.

Only used to ask a scheduler for memory and time; the extraction itself reads the true sizes from
the loaded model.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from vitfeat.models.entry import ModelEntry


@dataclass(frozen=True)
class Shape:
    """Sizes of a plain ViT: blocks, channels, heads, and pixels."""

    depth: int
    width: int
    heads: int
    #: Side of a patch and of the input, of a square of the same area.
    patch: int
    image_size: int

    @property
    def tokens(self) -> int:
        """Number of tokens: the grid and one CLS token."""
        return (self.image_size // self.patch) ** 2 + 1

    @property
    def parameters(self) -> float:
        """Approximate number of weights: 12 width² a block, and the patch embedding."""
        return self.depth * 12 * self.width**2 + 3 * self.patch**2 * self.width

    @property
    def flops_per_image(self) -> float:
        """Approximate floating-point operations of one forward pass (2 a multiply-add)."""
        attention = 4 * self.depth * self.tokens**2 * self.width
        return 2 * self.parameters * self.tokens + attention


# Depth, width and heads of the standard sizes (Dosovitskiy et al. 2021; Touvron et al. 2021;
# Zhai et al. 2022), by the word that names them in timm and open_clip.
_SIZES = {
    "tiny": (12, 192, 3),
    "small": (12, 384, 6),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
    "huge": (32, 1280, 16),
    # DINOv2's width; that of Zhai et al. is 1408.
    "giant": (40, 1536, 24),
    "gigantic": (48, 1664, 16),
    "so400m": (27, 1152, 16),
}
_LETTERS = {
    "T": "tiny",
    "S": "small",
    "B": "base",
    "L": "large",
    "H": "huge",
    "g": "giant",
    "bigG": "gigantic",
    "SO400M": "so400m",
}

# Input sizes that names leave out, by a word of the name.
_IMAGE_SIZES = {"dinov2": 518, "dinov3": 256}


def guess_shape(entry: ModelEntry) -> Shape:
    """Guess the sizes from the architecture's name; an unknown one counts as ViT-L/14.

    Guessing too large costs a scheduler a little room; too small costs the job.
    """
    if entry.source == "demo":
        return Shape(depth=6, width=64, heads=4, patch=4, image_size=32)
    if entry.is_imported:
        return Shape(depth=12, width=1024, heads=1, patch=1, image_size=1)
    word = re.search(r"_(tiny|small|base|large|huge|giant|gigantic|so400m)_", entry.name)
    letter = re.search(r"ViT-([TSBLHg]|bigG|SO400M)-", entry.name)
    known = word.group(1) if word else _LETTERS[letter.group(1)] if letter else "large"
    known = entry.name if entry.name in _SIZES else known
    depth, width, heads = _SIZES[known]
    patch = re.search(r"patch(\d+)|ViT-[A-Za-z0-9]+-(\d+)", entry.name)
    unsaid_patch = 16 if entry.source == "noise" else 14
    pixels = re.search(r"_(\d{3})(?:$|\.)|-(\d{3})(?:$|-)", entry.name)
    unsaid = next((size for word, size in _IMAGE_SIZES.items() if word in entry.name), 224)
    named_patch = int(next(g for g in patch.groups() if g)) if patch else unsaid_patch
    return Shape(
        depth=_told(entry, "depth", depth),
        width=_told(entry, "embed_dim", width),
        heads=_told(entry, "num_heads", heads),
        patch=_told(entry, "patch_size", named_patch),
        image_size=math.isqrt(math.prod(entry.input_size))
        if entry.input_size
        else (int(next(g for g in pixels.groups() if g)) if pixels else unsaid),
    )


def size_name(entry: ModelEntry) -> str:
    """Name a model's size as papers do: ``B/16@224``; depth x width where it has no letter.

    Empty where features are all that there is of a model.
    """
    if entry.is_imported:
        return ""
    shape = guess_shape(entry)
    word = re.search(r"_([a-z0-9]+?)(_plus)?_patch", "_" + entry.name)
    letter = re.search(r"ViT-(\w+)-\d", entry.name)
    letters = {name: sign for sign, name in _LETTERS.items()}
    size = entry.name if entry.source == "noise" else word and word.group(1)
    sign = letter.group(1) if letter else letters.get(str(size))
    if sign is None:
        sign = f"{shape.depth}x{shape.width}"
    plus = "+" if word and word.group(2) else ""
    return f"{sign}{plus}/{shape.patch}@{shape.image_size}"


def _told(entry: ModelEntry, key: str, guess: int) -> int:
    """Return what an entry's arguments say, the first of a pair; the guess where they say nonsense.

    Building the model says what is wrong with them.
    """
    value: Any = entry.args.get(key)
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value if type(value) is int and value > 0 else guess
