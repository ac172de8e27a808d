"""A loaded Vision Transformer, seen the same way whichever library built it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitfeat.final_norm import FinalNorm
from vitfeat.models.blocks import find_branches
from vitfeat.models.entry import ModelEntry
from vitfeat.text import normalisation


@dataclass(frozen=True)
class Backbone:
    """A ViT with what an extraction must know of it."""

    #: The catalogue's entry that it was built from.
    entry: ModelEntry
    #: The network, in evaluation mode, without gradients.
    module: nn.Module
    #: Runs images (n, 3, height, width), normalised, through all blocks; its result is not used.
    forward: Callable[[Tensor], Any]
    #: The transformer blocks in their order; block ``l`` is layer ``l``.
    blocks: Sequence[nn.Module]
    #: (height, width) of the input and a patch in pixels, and of the token grid.
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    grid: tuple[int, int]
    #: Channels of a token; attention heads of a block, of all its attention modules.
    width: int
    heads: int
    #: Whether token 0 is a CLS token.
    has_cls: bool
    #: Tokens before the grid: CLS and registers. DeiT's distillation token counts as a register.
    n_prefix: int
    #: Normalisation of RGB in 0..1.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: How images are resized for this model.
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    #: Whether blocks pass (image, token, channel) rather than (token, image, channel).
    batch_first: bool = True
    #: Where the weights came from: ``file``, ``sha256``, and of fetched ones ``repository`` and
    #: ``revision``, or ``url``. Empty for a network that was not loaded from a file.
    weights: Mapping[str, Any] = field(default_factory=dict)
    #: The norm behind the last block, which taps are before; None where there is none.
    final_norm: FinalNorm | None = None
    #: Who says that `mean` and `std` are the weights' own: the entry, its family, the file, ...
    normalised_by: str = ""
    #: What a reader of its numbers must know of how it was loaded, a line each for people: tensors
    #: left out or renamed, positions fitted, arguments that file or family told.
    notes: Sequence[str] = ()
    #: Loads the same network for inputs of another (height, width), its positions fitted from those
    #: that were published; weights that do not depend on the size are shared. None for a network
    #: that was not loaded by :mod:`vitfeat.models.loading`.
    at_size: Callable[[tuple[int, int]], Backbone] | None = field(default=None, repr=False)

    @property
    def normalisation(self) -> str:
        """How images are normalised and who says so, in words."""
        return normalisation(self.mean, self.std, self.normalised_by)

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def has_branches(self) -> bool:
        """Whether every block adds its attention and its MLP to a skip of its own."""
        return all(find_branches(block) is not None for block in self.blocks)

    @property
    def n_registers(self) -> int:
        """Number of prefix tokens that are not CLS, whatever a network uses them for."""
        return self.n_prefix - int(self.has_cls)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of an image: prefix and grid."""
        return self.n_prefix + self.grid[0] * self.grid[1]

    def weights_sha256(self) -> str:
        """Return one SHA-256 over all parameters and buffers: names, types, shapes and bytes.

        It tells networks apart whatever file format the weights came in. Buffers that are not
        saved count, too: rotary periods, for one, decide numbers.
        """
        digest = hashlib.sha256()
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name, tensor in sorted(tensors.items()):
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
