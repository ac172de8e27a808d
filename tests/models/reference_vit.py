"""Forward passes of published Vision Transformers, written from the papers.

They read the keys as published (no library's names in between), compute in the type of the images
(float64 in tests) and keep what vitfeat taps: the tokens after each block, before the final norm,
and the attention after its softmax. Nothing here is fast.

Sources: Dosovitskiy et al. 2021 (ViT), Caron et al. 2021 (DINO), He et al. 2022 (MAE), Chen et al.
2021 (MoCo-v3), Bao et al. 2022 (BEiT), Radford et al. 2021 (CLIP), Oquab et al. 2024 (DINOv2),
Darcet et al. 2024 (registers), Siméoni et al. 2025 (DINOv3), Assran et al. 2023 (I-JEPA), Touvron
et al. 2021 (DeiT).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed.

    Attributes
    ----------
    tokens
        (image, layer, token, channel): the output of each block.
    attention
        (image, layer, head, query, key): after the softmax.
    """

    tokens: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Linear:
    """Weights of a linear map: ``weight`` (out, in) and ``bias`` (out) or none."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.einsum("...i,oi->...o", x, self.weight.to(x.dtype))
        return y if self.bias is None else y + self.bias.to(x.dtype)


@dataclass(frozen=True)
class Norm:
    """Weights of a layer norm over channels."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        normal = centred / torch.sqrt(variance + self.epsilon)
        return normal * self.weight.to(x.dtype) + self.bias.to(x.dtype)


@dataclass(frozen=True)
class Block:
    """Weights of one pre-norm transformer block; ``scale`` are LayerScale's gammas."""

    norm1: Norm
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear
    scale: tuple[Tensor, Tensor] | None = None


def gelu(x: Tensor) -> Tensor:
    """Return x Φ(x), with the normal distribution function itself and no approximation."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def quick_gelu(x: Tensor) -> Tensor:
    """Return x σ(1.702 x), CLIP's activation."""
    return x / (1 + torch.exp(-1.702 * x))


def embed_patches(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project patches.

    Parameters
    ----------
    images
        (n, 3, height, width).
    weight
        (width, 3, patch, patch).
    bias
        (width), or none.

    Returns
    -------
    Tensor
        (n, token, width), tokens row by row.
    """
    patch = weight.shape[-1]
    grid = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    tokens = torch.einsum("nchpwq,dcpq->nhwd", grid, weight.to(images.dtype)).flatten(1, 2)
    return tokens if bias is None else tokens + bias.to(images.dtype)


def run_blocks(
    tokens: Tensor,
    blocks: list[Block],
    heads: int,
    activation: Activation = gelu,
    bias: Tensor | None = None,
    turn: Callable[[Tensor], Tensor] | None = None,
) -> Seen:
    """Push tokens through pre-norm blocks.

    Parameters
    ----------
    tokens
        (image, token, channel).
    blocks
        In their order.
    heads
        Attention heads.
    activation
        The MLP's.
    bias
        (head, query, key), added to the logits of every block.
    turn
        Rotary position embedding: applied to queries and keys (image, head, token, channel).
    """
    seen_tokens, seen_attention = [], []
    for block in blocks:
        normal = block.norm1(tokens)
        query, key, value = (
            part(normal).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (block.query, block.key, block.value)
        )
        if turn is not None:
            query, key = turn(query), turn(key)
        logits = torch.einsum("nhqc,nhkc->nhqk", query, key) / math.sqrt(query.shape[-1])
        if bias is not None:
            logits = logits + bias.to(logits.dtype)
        attention = logits.softmax(-1)
        mixed = torch.einsum("nhqk,nhkc->nqhc", attention, value).flatten(2)
        scale1, scale2 = (1.0, 1.0)
        if block.scale is not None:
            scale1, scale2 = (gamma.to(tokens.dtype) for gamma in block.scale)
        tokens = tokens + scale1 * block.out(mixed)
        tokens = tokens + scale2 * block.fc2(activation(block.fc1(block.norm2(tokens))))
        seen_tokens.append(tokens)
        seen_attention.append(attention)
    return Seen(torch.stack(seen_tokens, 1), torch.stack(seen_attention, 1))


def count_blocks(names: Mapping[str, object], before: str) -> int:
    """Return how many numbers follow `before` in the keys."""
    return len({k.removeprefix(before).split(".")[0] for k in names if k.startswith(before)})


def _linear(state: State, name: str) -> Linear:
    return Linear(state[f"{name}.weight"], state.get(f"{name}.bias"))


def _norm(state: State, name: str, epsilon: float) -> Norm:
    return Norm(state[f"{name}.weight"], state[f"{name}.bias"], epsilon)


def _thirds(weight: Tensor, bias: Tensor | None) -> tuple[Linear, Linear, Linear]:
    """Split the rows of a joint projection: queries, keys, values."""
    weights = weight.chunk(3)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    query, key, value = (Linear(w, b) for w, b in zip(weights, biases, strict=True))
    return query, key, value


def timm_named_blocks(state: State, epsilon: float) -> list[Block]:
    """Read blocks named as DINO, MAE, MoCo-v3, DeiT, I-JEPA, DINOv2 and DINOv3 publish them."""
    blocks = []
    for i in range(count_blocks(state, "blocks.")):
        name = f"blocks.{i}"
        bias = state.get(f"{name}.attn.qkv.bias")
        if (mask := state.get(f"{name}.attn.qkv.bias_mask")) is not None and bias is not None:
            # DINOv3: keys have no bias, whatever is stored.
            bias = torch.where(mask > 0, bias, torch.zeros_like(bias))
        query, key, value = _thirds(state[f"{name}.attn.qkv.weight"], bias)
        gammas = (state.get(f"{name}.ls1.gamma"), state.get(f"{name}.ls2.gamma"))
        blocks.append(
            Block(
                norm1=_norm(state, f"{name}.norm1", epsilon),
                query=query,
                key=key,
                value=value,
                out=_linear(state, f"{name}.attn.proj"),
                norm2=_norm(state, f"{name}.norm2", epsilon),
                fc1=_linear(state, f"{name}.mlp.fc1"),
                fc2=_linear(state, f"{name}.mlp.fc2"),
                scale=None if gammas[0] is None or gammas[1] is None else (gammas[0], gammas[1]),
            )
        )
    return blocks


def vit(state: State, images: Tensor, heads: int, positions: Tensor | None = None) -> Seen:
    """Run a plain ViT: DINO, MAE's encoder, MoCo-v3, DeiT (distilled too), I-JEPA, DINOv2.

    Parameters
    ----------
    state
        Published keys, without a container's prefix.
    images
        (n, 3, height, width).
    heads
        Attention heads; no weight tells them.
    positions
        (1, token, channel), for image sizes other than the file's: instead of ``pos_embed``.
    """
    kind = images.dtype
    tokens = embed_patches(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"])
    first = [state[k].to(kind) for k in ("cls_token", "dist_token") if k in state]
    tokens = torch.cat([*(t.expand(len(images), -1, -1) for t in first), tokens], 1)
    tokens = tokens + (state["pos_embed"] if positions is None else positions).to(kind)
    if (registers := state.get("register_tokens")) is not None:
        # DINOv2: between CLS and patches, without positions.
        registers = registers.to(kind).expand(len(images), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
    return run_blocks(tokens, timm_named_blocks(state, 1e-6), heads)


def dinov3(state: State, images: Tensor, heads: int) -> Seen:
    """Run DINOv3: storage tokens, and a rotary embedding of the patches' places.

    A patch's place is the middle of its cell, from -1 to 1 over each side of the image; a pair of
    channels turns by 2π place / period. Channels of a head are, twice over, those of the row and
    those of the column.
    """
    kind = images.dtype
    weight = state["patch_embed.proj.weight"]
    patch = weight.shape[-1]
    height, width = images.shape[2] // patch, images.shape[3] // patch
    tokens = embed_patches(images, weight, state["patch_embed.proj.bias"])
    first = [state[k].to(kind).expand(len(images), -1, -1) for k in ("cls_token", "storage_tokens")]
    n_first = sum(t.shape[1] for t in first)

    rows = 2 * (torch.arange(height, dtype=kind) + 0.5) / height - 1
    columns = 2 * (torch.arange(width, dtype=kind) + 0.5) / width - 1
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2, 1)
    angles = (2 * math.pi * places / state["rope_embed.periods"].to(kind)).flatten(1)
    cosine, sine = angles.cos(), angles.sin()

    def turn(x: Tensor) -> Tensor:
        left, right = x[:, :, n_first:].chunk(2, -1)
        turned = torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)
        return torch.cat([x[:, :, :n_first], turned], 2)

    blocks = timm_named_blocks(state, 1e-5)
    return run_blocks(torch.cat([*first, tokens], 1), blocks, heads, turn=turn)


def relative_index(height: int, width: int) -> Tensor:
    """Give the row of BEiT's bias table for each pair of tokens.

    One row for each offset between two patches, by the row offset first; then three rows: from CLS
    to a patch, from a patch to CLS, from CLS to itself.

    Returns
    -------
    Tensor
        (1 + height width, 1 + height width), query by key.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    down = rows[:, None] - rows[None, :] + height - 1
    right = columns[:, None] - columns[None, :] + width - 1
    offsets = (2 * height - 1) * (2 * width - 1)
    index = np.empty((1 + height * width,) * 2, np.int64)
    index[1:, 1:] = down * (2 * width - 1) + right
    index[0, 1:] = offsets
    index[1:, 0] = offsets + 1
    index[0, 0] = offsets + 2
    return torch.from_numpy(index)


def beit(state: State, images: Tensor, heads: int, table: Tensor | None = None) -> Seen:
    """Run BEiT as it was pre-trained: one relative position bias for all blocks.

    Parameters
    ----------
    state
        Published keys.
    images
        (n, 3, height, width); no patch is masked.
    heads
        Attention heads.
    table
        (offset, head), for image sizes other than the file's: instead of the file's.
    """
    kind = images.dtype
    weight = state["patch_embed.proj.weight"]
    patch = weight.shape[-1]
    tokens = embed_patches(images, weight, state["patch_embed.proj.bias"])
    tokens = torch.cat([state["cls_token"].to(kind).expand(len(images), -1, -1), tokens], 1)
    if table is None:
        table = state["rel_pos_bias.relative_position_bias_table"]
    index = relative_index(images.shape[2] // patch, images.shape[3] // patch)
    bias = table[index].permute(2, 0, 1)
    blocks = []
    for i in range(count_blocks(state, "blocks.")):
        name = f"blocks.{i}"
        query, key, value = state[f"{name}.attn.qkv.weight"].chunk(3)
        blocks.append(
            Block(
                norm1=_norm(state, f"{name}.norm1", 1e-6),
                query=Linear(query, state[f"{name}.attn.q_bias"]),
                key=Linear(key),
                value=Linear(value, state[f"{name}.attn.v_bias"]),
                out=_linear(state, f"{name}.attn.proj"),
                norm2=_norm(state, f"{name}.norm2", 1e-6),
                fc1=_linear(state, f"{name}.mlp.fc1"),
                fc2=_linear(state, f"{name}.mlp.fc2"),
                scale=(state[f"{name}.gamma_1"], state[f"{name}.gamma_2"]),
            )
        )
    return run_blocks(tokens, blocks, heads, bias=bias)


def clip(state: State, images: Tensor, heads: int, positions: Tensor | None = None) -> Seen:
    """Run the image tower of OpenAI's CLIP.

    Parameters
    ----------
    state
        Published keys, of float16 or float32.
    images
        (n, 3, height, width).
    heads
        Attention heads.
    positions
        (token, channel), for image sizes other than the file's.
    """
    kind = images.dtype
    tokens = embed_patches(images, state["visual.conv1.weight"], None)
    first = state["visual.class_embedding"].to(kind).expand(len(images), 1, -1)
    if positions is None:
        positions = state["visual.positional_embedding"]
    tokens = torch.cat([first, tokens], 1) + positions.to(kind)
    tokens = _norm(state, "visual.ln_pre", 1e-5)(tokens)
    before = "visual.transformer.resblocks."
    blocks = []
    for i in range(count_blocks(state, before)):
        name = f"{before}{i}"
        query, key, value = _thirds(
            state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
        )
        blocks.append(
            Block(
                norm1=_norm(state, f"{name}.ln_1", 1e-5),
                query=query,
                key=key,
                value=value,
                out=_linear(state, f"{name}.attn.out_proj"),
                norm2=_norm(state, f"{name}.ln_2", 1e-5),
                fc1=_linear(state, f"{name}.mlp.c_fc"),
                fc2=_linear(state, f"{name}.mlp.c_proj"),
            )
        )
    return run_blocks(tokens, blocks, heads, activation=quick_gelu)


def google(
    arrays: Mapping[str, np.ndarray], images: Tensor, positions: Tensor | None = None
) -> Seen:
    """Run a ViT of Google's ``.npz`` files, whose kernels are (in, out) and split by head.

    The activation is the exact GELU, as in PyTorch's ports; Flax's own ``gelu`` is the tanh
    approximation of it.

    Parameters
    ----------
    arrays
        The file's arrays.
    images
        (n, 3, height, width).
    positions
        (1, token, channel), for image sizes other than the file's.
    """
    state = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    kind = images.dtype

    def norm(name: str) -> Norm:
        return Norm(state[f"{name}/scale"], state[f"{name}/bias"], 1e-6)

    def dense(name: str, n_in: int = 1) -> Linear:
        # The first n_in axes of a kernel are those it sums over.
        kernel = state[f"{name}/kernel"].flatten(0, n_in - 1).flatten(1)
        return Linear(kernel.T, state[f"{name}/bias"].flatten())

    kernel = state["embedding/kernel"].permute(3, 2, 0, 1)
    tokens = embed_patches(images, kernel, state["embedding/bias"])
    tokens = torch.cat([state["cls"].to(kind).expand(len(images), -1, -1), tokens], 1)
    if positions is None:
        positions = state["Transformer/posembed_input/pos_embedding"]
    tokens = tokens + positions.to(kind)
    blocks = []
    depth = len({k.split("/")[1] for k in state if k.startswith("Transformer/encoderblock_")})
    for i in range(depth):
        name = f"Transformer/encoderblock_{i}"
        attention = f"{name}/MultiHeadDotProductAttention_1"
        blocks.append(
            Block(
                norm1=norm(f"{name}/LayerNorm_0"),
                query=dense(f"{attention}/query"),
                key=dense(f"{attention}/key"),
                value=dense(f"{attention}/value"),
                out=dense(f"{attention}/out", n_in=2),
                norm2=norm(f"{name}/LayerNorm_2"),
                fc1=dense(f"{name}/MlpBlock_3/Dense_0"),
                fc2=dense(f"{name}/MlpBlock_3/Dense_1"),
            )
        )
    heads = state["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias"].shape[0]
    return run_blocks(tokens, blocks, heads)
