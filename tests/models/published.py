"""Weights in the layouts in which they are published: right names, shapes and containers.

The numbers are drawn from a seed and are large enough that nothing can be forgotten unseen:
attention is far from uniform, no bias is zero, no layer norm is the identity, and the tokens that
enter the first block are small, so that the layer norms' epsilon shows.

Names and shapes: facebookresearch/dino, mae, moco-v3, dinov2, dinov3, ijepa, deit; microsoft/unilm
(beit); openai/CLIP; mlfoundations/open_clip; google-research/vision_transformer; and transformers
4.57 for the layouts of its hub.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.reference_vit import count_blocks, relative_index

State = dict[str, Tensor]

# Standard deviation of the entries of queries and keys: that of logits is about its square.
_QK_GAIN = 1.8

# What attention adds to tokens is kept small beside them: it draws tokens together, and tokens that
# are alike make attention uniform.
_OUT_GAIN = 0.5

# Standard deviation of the tokens that enter the first block; patches of models with fixed
# positions are on the scale of sines.
_EMBED = 0.05
_EMBED_BESIDE_SINES = 0.5


@dataclass(frozen=True)
class Size:
    """Sizes of an architecture; the defaults are a shrunk one's.

    Attributes
    ----------
    depth, width, heads
        Blocks, channels, attention heads.
    patch
        Side of a patch in pixels.
    grid
        Side of the token grid that the file's positions are for.
    """

    depth: int = 3
    width: int = 48
    heads: int = 3
    patch: int = 16
    grid: int = 4

    @property
    def image_size(self) -> int:
        """Side of the image in pixels."""
        return self.patch * self.grid

    @property
    def args(self) -> dict[str, int]:
        """The sizes as timm's keyword arguments."""
        return {"depth": self.depth, "embed_dim": self.width, "num_heads": self.heads}


SMALL = Size()
VIT_S16 = Size(depth=12, width=384, heads=12, grid=14)  # MoCo-v3's heads
VIT_B16 = Size(depth=12, width=768, heads=12, grid=14)
# CLIP's heads have 64 channels whatever the size: its files do not say how many heads there are.
SMALL_CLIP = Size(depth=2, width=128, heads=2)


class _Draw:
    """Random weights, one kind a method."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=self._generator) * std + mean

    def matrix(self, out: int, n_in: int, gain: float = 1.0) -> Tensor:
        return self.normal(out, n_in, std=gain / math.sqrt(n_in))

    def bias(self, n: int) -> Tensor:
        return self.normal(n, std=0.2)

    def linear(self, name: str, out: int, n_in: int, gain: float = 1.0) -> State:
        return {f"{name}.weight": self.matrix(out, n_in, gain), f"{name}.bias": self.bias(out)}

    def norm(self, name: str, n: int) -> State:
        return {f"{name}.weight": self.normal(n, std=0.2, mean=1.0), f"{name}.bias": self.bias(n)}

    def queries_keys_values(self, width: int) -> Tensor:
        parts = [self.matrix(width, width, gain) for gain in (_QK_GAIN, _QK_GAIN, 1.0)]
        return torch.cat(parts)

    def patches(self, width: int, patch: int, scale: float = _EMBED) -> Tensor:
        return self.normal(width, 3, patch, patch, std=scale / math.sqrt(3 * patch**2))

    def token(self, *shape: int) -> Tensor:
        return self.normal(*shape, std=_EMBED)

    def gamma(self, n: int) -> Tensor:
        return self.normal(n, std=0.2, mean=0.6)

    def batch_norm(self, name: str, n: int, affine: bool = True) -> State:
        state = self.norm(name, n) if affine else {}
        return {
            **state,
            f"{name}.running_mean": self.bias(n),
            f"{name}.running_var": self.normal(n, std=0.1).abs() + 1,
            f"{name}.num_batches_tracked": torch.tensor(1000),
        }


def save(path: Path, content: Any) -> str:
    """Write what a function of this module gave.

    Parameters
    ----------
    path
        The name's end tells how: ``.npz`` for Google's arrays, ``.safetensors`` for a plain state
        dict, anything else as ``torch.save`` does.
    content
        A container.

    Returns
    -------
    str
        The path.
    """
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".safetensors":
        # Parts of one storage are refused.
        save_file({name: tensor.contiguous().clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return str(path)


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _without(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _optimizer() -> dict[str, Any]:
    """What ``optimizer.state_dict()`` gives: tensors that are no weights."""
    return {
        "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95), "params": [0]}],
    }


def sincos_positions(width: int, height: int, columns: int, *, row_first: bool) -> Tensor:
    """Give fixed two-dimensional sine-cosine positions of a grid.

    A place p along one side becomes sin(p ω) and cos(p ω) with ω from 1 towards 1/10000 in width/4
    steps. MoCo-v3 puts the row's half of the channels first, MAE and I-JEPA the column's.

    Returns
    -------
    Tensor
        (height columns, width), float32, rounded once from float64.
    """
    steps = width // 4
    omega = 10000.0 ** (-np.arange(steps) / steps)
    row, column = (p.reshape(-1, 1) * omega for p in np.mgrid[:height, :columns])
    halves = [row, column] if row_first else [column, row]
    parts = [wave(half) for half in halves for wave in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))


def _with_cls(positions: Tensor) -> Tensor:
    """Put the zeros of a CLS token before fixed positions: (1, token, channel)."""
    return torch.cat([torch.zeros(1, positions.shape[1]), positions])[None]


def _blocks(draw: _Draw, depth: int, width: int, prefix: str = "blocks") -> State:
    """Blocks as timm named them in 2020, and most published files since."""
    state: State = {}
    for i in range(depth):
        name = f"{prefix}.{i}"
        state |= draw.norm(f"{name}.norm1", width)
        state[f"{name}.attn.qkv.weight"] = draw.queries_keys_values(width)
        state[f"{name}.attn.qkv.bias"] = draw.bias(3 * width)
        state |= draw.linear(f"{name}.attn.proj", width, width, _OUT_GAIN)
        state |= draw.norm(f"{name}.norm2", width)
        state |= draw.linear(f"{name}.mlp.fc1", 4 * width, width)
        state |= draw.linear(f"{name}.mlp.fc2", width, 4 * width)
    return state


def _vit(draw: _Draw, size: Size, positions: Tensor | None = None, first: int = 1) -> State:
    """A ViT's weights under timm's names, with learned positions if none are given."""
    state: State = {}
    scale = _EMBED if positions is None else _EMBED_BESIDE_SINES
    if first:
        state["cls_token"] = draw.token(1, 1, size.width)
    if first > 1:
        state["dist_token"] = draw.token(1, 1, size.width)
    if positions is None:
        positions = draw.token(1, first + size.grid**2, size.width)
    state["pos_embed"] = positions
    state["patch_embed.proj.weight"] = draw.patches(size.width, size.patch, scale)
    state["patch_embed.proj.bias"] = draw.token(size.width)
    state |= _blocks(draw, size.depth, size.width)
    return state | draw.norm("norm", size.width)


def plain(size: Size = SMALL, seed: int = 0) -> State:
    """Give a ViT under timm's names: DINO's backbone file, or a supervised one without its head."""
    return _vit(_Draw(seed), size)


def dino_backbone(size: Size = SMALL, seed: int = 0) -> State:
    """Give DINO's ``*_pretrain.pth``: the teacher's backbone, nothing around it."""
    return plain(size, seed)


def dino_full(size: Size = SMALL, seed: int = 0) -> dict[str, Any]:
    """Give DINO's ``*_full_checkpoint.pth``.

    The student was trained in parallel and its keys say so; the teacher's do not. The teacher's
    backbone is :func:`dino_backbone` of the same seed, the student's that of the next.
    """

    def network(own_seed: int) -> State:
        draw = _Draw(own_seed + 1000)
        head = {
            **draw.linear("mlp.0", 32, size.width),
            **draw.linear("mlp.2", 32, 32),
            **draw.linear("mlp.4", 16, 32),
            "last_layer.weight_g": torch.ones(24, 1),
            "last_layer.weight_v": draw.matrix(24, 16),
        }
        backbone = dino_backbone(size, own_seed)
        return _prefixed("backbone.", backbone) | _prefixed("head.", head)

    return {
        "student": _prefixed("module.", network(seed + 1)),
        "teacher": network(seed),
        "optimizer": _optimizer(),
        "epoch": 800,
        "args": argparse.Namespace(arch="vit_small", patch_size=size.patch, lr=0.0005),
        "dino_loss": {"center": torch.zeros(1, 24)},
    }


def mae(size: Size = SMALL, seed: int = 0, *, decoder: bool = False) -> dict[str, Any]:
    """Give MAE's ``mae_pretrain_*.pth``, or with its decoder the ones for visualisation."""
    draw = _Draw(seed)
    positions = sincos_positions(size.width, size.grid, size.grid, row_first=False)
    state = _vit(draw, size, _with_cls(positions))
    if decoder:
        width = 32
        positions = sincos_positions(width, size.grid, size.grid, row_first=False)
        state |= {
            "mask_token": draw.token(1, 1, width),
            "decoder_pos_embed": _with_cls(positions),
            **draw.linear("decoder_embed", width, size.width),
            **_blocks(draw, 2, width, "decoder_blocks"),
            **draw.norm("decoder_norm", width),
            **draw.linear("decoder_pred", 3 * size.patch**2, width),
        }
    return {"model": state}


def moco_encoder(size: Size = SMALL, seed: int = 0) -> State:
    """Give the ViT inside MoCo-v3's checkpoint, under the names without their prefix."""
    positions = sincos_positions(size.width, size.grid, size.grid, row_first=True)
    return _vit(_Draw(seed), size, _with_cls(positions))


def moco(size: Size = SMALL, seed: int = 0) -> dict[str, Any]:
    """Give MoCo-v3's ``vit-*-300ep.pth.tar``.

    The base encoder is :func:`moco_encoder` of the same seed, the momentum encoder that of the
    next. Each has its projector in the place of a head.
    """
    draw = _Draw(seed + 1000)
    hidden, out = 40, 24

    def projector() -> State:
        return {
            "head.0.weight": draw.matrix(hidden, size.width),
            **draw.batch_norm("head.1", hidden),
            "head.3.weight": draw.matrix(hidden, hidden),
            **draw.batch_norm("head.4", hidden),
            "head.6.weight": draw.matrix(out, hidden),
            **draw.batch_norm("head.7", out, affine=False),
        }

    predictor = {
        "0.weight": draw.matrix(hidden, out),
        **draw.batch_norm("1", hidden),
        "3.weight": draw.matrix(out, hidden),
        **draw.batch_norm("4", out, affine=False),
    }
    base = moco_encoder(size, seed) | projector()
    momentum = moco_encoder(size, seed + 1) | projector()
    return {
        "epoch": 300,
        "arch": "vit_small",
        "state_dict": {
            **_prefixed("module.base_encoder.", base),
            **_prefixed("module.momentum_encoder.", momentum),
            **_prefixed("module.predictor.", predictor),
        },
        "optimizer": _optimizer(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
    }


def beit(size: Size = SMALL, seed: int = 0) -> dict[str, Any]:
    """Give BEiT's ``beit_*_pt22k.pth``, self-supervised only.

    Queries and values have a bias, keys have none; one bias table serves all blocks.
    """
    draw = _Draw(seed)
    width, vocabulary = size.width, 20
    state = {
        "cls_token": draw.token(1, 1, width),
        "mask_token": draw.token(1, 1, width),
        "patch_embed.proj.weight": draw.patches(width, size.patch),
        "patch_embed.proj.bias": draw.token(width),
        "rel_pos_bias.relative_position_bias_table": draw.normal(
            (2 * size.grid - 1) ** 2 + 3, size.heads
        ),
        "rel_pos_bias.relative_position_index": relative_index(size.grid, size.grid),
    }
    for i in range(size.depth):
        name = f"blocks.{i}"
        state |= {
            f"{name}.gamma_1": draw.gamma(width),
            f"{name}.gamma_2": draw.gamma(width),
            **draw.norm(f"{name}.norm1", width),
            f"{name}.attn.q_bias": draw.bias(width),
            f"{name}.attn.v_bias": draw.bias(width),
            f"{name}.attn.qkv.weight": draw.queries_keys_values(width),
            **draw.linear(f"{name}.attn.proj", width, width, _OUT_GAIN),
            **draw.norm(f"{name}.norm2", width),
            **draw.linear(f"{name}.mlp.fc1", 4 * width, width),
            **draw.linear(f"{name}.mlp.fc2", width, 4 * width),
        }
    state |= draw.norm("norm", width) | draw.linear("lm_head", vocabulary, width)
    return {"model": state}


def clip(size: Size = SMALL_CLIP, seed: int = 0, *, half: bool = False) -> State:
    """Give the state dict of an OpenAI CLIP model, text tower and all.

    Parameters
    ----------
    size
        Of the image tower.
    seed
        Of the numbers.
    half
        Whether linear maps are of float16, as OpenAI publishes them; embeddings and layer norms
        are of float32.
    """
    draw = _Draw(seed)
    width, text_width, embed, vocabulary, context = size.width, 64, 32, 50, 8
    state = {
        "positional_embedding": draw.token(context, text_width),
        "text_projection": draw.matrix(text_width, embed),
        "logit_scale": torch.tensor(math.log(100.0)),
        "visual.class_embedding": draw.token(width),
        "visual.positional_embedding": draw.token(1 + size.grid**2, width),
        "visual.proj": draw.matrix(width, embed),
        "visual.conv1.weight": draw.patches(width, size.patch),
        **draw.norm("visual.ln_pre", width),
        **_clip_blocks(draw, "visual.transformer.resblocks", size.depth, width),
        **draw.norm("visual.ln_post", width),
        **_clip_blocks(draw, "transformer.resblocks", 1, text_width),
        "token_embedding.weight": draw.token(vocabulary, text_width),
        **draw.norm("ln_final", text_width),
        "input_resolution": torch.tensor(size.image_size),
        "context_length": torch.tensor(context),
        "vocab_size": torch.tensor(vocabulary),
    }
    if half:
        linear = ("conv1", "attn.", "mlp.", "proj", "text_projection")
        state = {k: v.half() if any(part in k for part in linear) else v for k, v in state.items()}
    return state


def _clip_blocks(draw: _Draw, prefix: str, depth: int, width: int) -> State:
    state: State = {}
    for i in range(depth):
        name = f"{prefix}.{i}"
        state |= {
            f"{name}.attn.in_proj_weight": draw.queries_keys_values(width),
            f"{name}.attn.in_proj_bias": draw.bias(3 * width),
            **draw.linear(f"{name}.attn.out_proj", width, width, _OUT_GAIN),
            **draw.norm(f"{name}.ln_1", width),
            **draw.linear(f"{name}.mlp.c_fc", 4 * width, width),
            **draw.linear(f"{name}.mlp.c_proj", width, 4 * width),
            **draw.norm(f"{name}.ln_2", width),
        }
    return state


def open_clip_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Give open_clip's training checkpoint (``epoch_*.pt``) of a CLIP model's weights."""
    scalars = ("input_resolution", "context_length", "vocab_size")
    weights = {k: v for k, v in state.items() if k not in scalars}
    return {
        "epoch": 32,
        "name": "run",
        "state_dict": _prefixed("module.", weights),
        "optimizer": _optimizer(),
    }


def open_clip_weights(state: Mapping[str, Tensor]) -> State:
    """Give open_clip's ``open_clip_pytorch_model.bin`` of a CLIP model's weights."""
    return _without("module.", open_clip_checkpoint(state)["state_dict"])


class _Archive(nn.Module):
    """Modules that hold a state dict's tensors under their names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        parts: dict[str, State] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                parts.setdefault(first, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(first, nn.Parameter(tensor))
            else:
                self.register_buffer(first, tensor)
        for name, content in parts.items():
            self.add_module(name, _Archive(content))

    def forward(self, images: Tensor) -> Tensor:
        return images


def save_torchscript(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write a state dict as the TorchScript archive that OpenAI publishes."""
    with warnings.catch_warnings():
        # PyTorch would have new models exported another way; OpenAI's files stay as they are.
        warnings.simplefilter("ignore")
        torch.jit.trace(_Archive(state), torch.zeros(1)).save(str(path))
    return str(path)


def google(
    size: Size = SMALL, seed: int = 0, *, representation: int | None = None
) -> dict[str, np.ndarray]:
    """Give the arrays of Google's ``.npz`` files.

    Parameters
    ----------
    size
        Sizes.
    seed
        Of the numbers.
    representation
        Units of the layer before the head, which the first models trained on ImageNet-21k have.
    """
    draw = _Draw(seed)
    width, heads = size.width, size.heads
    channels = width // heads

    def dense(name: str, shape_in: tuple[int, ...], shape_out: tuple[int, ...], gain: float = 1):
        kernel = draw.matrix(math.prod(shape_out), math.prod(shape_in), gain).T
        return {
            f"{name}/kernel": kernel.reshape(*shape_in, *shape_out),
            f"{name}/bias": draw.bias(math.prod(shape_out)).reshape(shape_out),
        }

    def norm(name: str) -> State:
        return {
            f"{name}/scale": draw.normal(width, std=0.2, mean=1.0),
            f"{name}/bias": draw.bias(width),
        }

    state = {
        "cls": draw.token(1, 1, width),
        "embedding/kernel": draw.patches(width, size.patch).permute(2, 3, 1, 0),
        "embedding/bias": draw.token(width),
        "Transformer/posembed_input/pos_embedding": draw.token(1, 1 + size.grid**2, width),
        **norm("Transformer/encoder_norm"),
    }
    for i in range(size.depth):
        name = f"Transformer/encoderblock_{i}"
        attention = f"{name}/MultiHeadDotProductAttention_1"
        state |= {
            **norm(f"{name}/LayerNorm_0"),
            **dense(f"{attention}/query", (width,), (heads, channels), _QK_GAIN),
            **dense(f"{attention}/key", (width,), (heads, channels), _QK_GAIN),
            **dense(f"{attention}/value", (width,), (heads, channels)),
            **dense(f"{attention}/out", (heads, channels), (width,), _OUT_GAIN),
            **norm(f"{name}/LayerNorm_2"),
            **dense(f"{name}/MlpBlock_3/Dense_0", (width,), (4 * width,)),
            **dense(f"{name}/MlpBlock_3/Dense_1", (4 * width,), (width,)),
        }
    last = width
    if representation is not None:
        state |= dense("pre_logits", (width,), (representation,))
        last = representation
    state |= dense("head", (last,), (10,))
    return {name: tensor.contiguous().numpy() for name, tensor in state.items()}


def dinov2(size: Size = SMALL, seed: int = 0, *, registers: int = 0) -> State:
    """Give DINOv2's ``dinov2_vit*_pretrain.pth``, with registers those of ``*_reg4_*``."""
    draw = _Draw(seed)
    state = _vit(draw, size)
    state["mask_token"] = draw.token(1, size.width)
    if registers:
        state["register_tokens"] = draw.token(1, registers, size.width)
    for i in range(size.depth):
        state[f"blocks.{i}.ls1.gamma"] = draw.gamma(size.width)
        state[f"blocks.{i}.ls2.gamma"] = draw.gamma(size.width)
    return state


def dinov3(
    size: Size = SMALL, seed: int = 0, *, rounded: bool = True, biased: bool = True
) -> State:
    """Give DINOv3's ``dinov3_vit*_pretrain_*.pth``.

    Biases of keys are stored and masked: here they are not zero, for a mask that is forgotten to
    show.

    Parameters
    ----------
    size
        Sizes.
    seed
        Of the numbers.
    rounded
        Whether the rotary embedding's periods were rounded to bfloat16, as in published files.
    biased
        Whether biases of queries and values are other than zero; in most published files they are
        zero.
    """
    draw = _Draw(seed)
    state = _vit(draw, size)
    del state["pos_embed"]
    steps = size.width // size.heads // 4
    periods = 100.0 ** (torch.arange(steps) / steps)
    state |= {
        "storage_tokens": draw.token(1, 4, size.width),
        "mask_token": draw.token(1, size.width),
        "rope_embed.periods": periods.bfloat16().float() if rounded else periods,
    }
    mask = torch.ones(3, size.width)
    mask[1] = 0
    for i in range(size.depth):
        state[f"blocks.{i}.attn.qkv.bias_mask"] = mask.flatten()
        state[f"blocks.{i}.attn.qkv.bias"] *= (1 - mask.flatten()) if not biased else 1
        state[f"blocks.{i}.ls1.gamma"] = draw.gamma(size.width)
        state[f"blocks.{i}.ls2.gamma"] = draw.gamma(size.width)
    return state


def ijepa_encoder(size: Size = SMALL, seed: int = 0) -> State:
    """Give the ViT inside I-JEPA's checkpoint, under the names without their prefix."""
    positions = sincos_positions(size.width, size.grid, size.grid, row_first=False)
    return _vit(_Draw(seed), size, positions[None], first=0)


def ijepa(size: Size = SMALL, seed: int = 0) -> dict[str, Any]:
    """Give I-JEPA's ``IN*-vit.*.pth.tar``.

    The target encoder, which is the one to evaluate, is :func:`ijepa_encoder` of the same seed, the
    context encoder that of the next.
    """
    draw = _Draw(seed + 1000)
    width = 24
    positions = sincos_positions(width, size.grid, size.grid, row_first=False)
    predictor = {
        "mask_token": draw.token(1, 1, width),
        "predictor_pos_embed": positions[None],
        **draw.linear("predictor_embed", width, size.width),
        **_blocks(draw, 2, width, "predictor_blocks"),
        **draw.norm("predictor_norm", width),
        **draw.linear("predictor_proj", size.width, width),
    }
    return {
        "encoder": _prefixed("module.", ijepa_encoder(size, seed + 1)),
        "predictor": _prefixed("module.", predictor),
        "opt": _optimizer(),
        "scaler": None,
        "target_encoder": _prefixed("module.", ijepa_encoder(size, seed)),
        "epoch": 300,
        "loss": 0.1,
        "batch_size": 128,
        "world_size": 16,
        "lr": 1e-3,
    }


def deit_distilled(size: Size = SMALL, seed: int = 0) -> dict[str, Any]:
    """Give DeiT's ``deit_*_distilled_*.pth``: a second token and a second head."""
    draw = _Draw(seed)
    state = _vit(draw, size, first=2)
    state |= draw.linear("head", 10, size.width) | draw.linear("head_dist", 10, size.width)
    return {"model": state}


# --- The layouts of transformers' hub, from the official numbers ---


def _split(state: Mapping[str, Tensor], i: int, name: str) -> State:
    """Joint projections as transformers' three; a bias of keys only where there is one."""
    before = f"blocks.{i}.attn"
    out = dict(
        zip(
            (f"{name}.attention.attention.{part}.weight" for part in ("query", "key", "value")),
            state[f"{before}.qkv.weight"].chunk(3),
            strict=True,
        )
    )
    if f"{before}.qkv.bias" in state:
        query, key, value = state[f"{before}.qkv.bias"].chunk(3)
        out[f"{name}.attention.attention.key.bias"] = key
    else:
        query, value = state[f"{before}.q_bias"], state[f"{before}.v_bias"]
    out[f"{name}.attention.attention.query.bias"] = query
    out[f"{name}.attention.attention.value.bias"] = value
    for part in ("weight", "bias"):
        out[f"{name}.attention.output.dense.{part}"] = state[f"{before}.proj.{part}"]
    # Views of one storage would be saved together.
    return {key: tensor.clone() for key, tensor in out.items()}


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    """Give weight and bias of each old name its new one."""
    return {
        f"{new}.{part}": state[f"{old}.{part}"]
        for old, new in names.items()
        for part in ("weight", "bias")
    }


def _transformers_mlp(i: int, name: str) -> dict[str, str]:
    return {
        f"blocks.{i}.norm1": f"{name}.layernorm_before",
        f"blocks.{i}.norm2": f"{name}.layernorm_after",
        f"blocks.{i}.mlp.fc1": f"{name}.intermediate.dense",
        f"blocks.{i}.mlp.fc2": f"{name}.output.dense",
    }


def transformers_beit(state: Mapping[str, Tensor], *, index: bool = False) -> State:
    """Give ``BeitForMaskedImageModeling``'s file of BEiT's official weights.

    The last layer norm stands outside ``beit.``, and the bias table is the encoder's.

    Parameters
    ----------
    state
        The official state dict.
    index
        Whether the table's index is there, as in files of older transformers (4.11).
    """
    tables = ["relative_position_bias_table"] + ["relative_position_index"] * index
    out = {
        "beit.embeddings.cls_token": state["cls_token"],
        "beit.embeddings.mask_token": state["mask_token"],
        **{
            f"beit.encoder.relative_position_bias.{name}": state[f"rel_pos_bias.{name}"]
            for name in tables
        },
        **_renamed(
            state,
            {
                "patch_embed.proj": "beit.embeddings.patch_embeddings.projection",
                "norm": "layernorm",
                "lm_head": "lm_head",
            },
        ),
    }
    for i in range(count_blocks(state, "blocks.")):
        name = f"beit.encoder.layer.{i}"
        out |= {
            f"{name}.lambda_1": state[f"blocks.{i}.gamma_1"],
            f"{name}.lambda_2": state[f"blocks.{i}.gamma_2"],
            **_split(state, i, name),
            **_renamed(state, _transformers_mlp(i, name)),
        }
    return out


def transformers_vit(state: Mapping[str, Tensor], *, classifier: bool = True) -> State:
    """Give the file of ``ViTForImageClassification``, or ``ViTModel``'s, of a plain ViT's weights.

    Parameters
    ----------
    state
        As :func:`plain` gives it.
    classifier
        Whether keys start with ``vit.`` and a classifier follows; else there is a pooler.
    """
    draw, width = _Draw(1000), state["cls_token"].shape[-1]
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        **_renamed(
            state,
            {
                "patch_embed.proj": "embeddings.patch_embeddings.projection",
                "norm": "layernorm",
            },
        ),
    }
    for i in range(count_blocks(state, "blocks.")):
        name = f"encoder.layer.{i}"
        out |= _split(state, i, name) | _renamed(state, _transformers_mlp(i, name))
    if classifier:
        return _prefixed("vit.", out) | draw.linear("classifier", 10, width)
    return out | draw.linear("pooler.dense", width, width)


def transformers_dinov2(state: Mapping[str, Tensor]) -> State:
    """Give the file of ``Dinov2Model`` or ``Dinov2WithRegistersModel`` of official weights."""
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": state["mask_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        **_renamed(
            state,
            {
                "patch_embed.proj": "embeddings.patch_embeddings.projection",
                "norm": "layernorm",
            },
        ),
    }
    if "register_tokens" in state:
        out["embeddings.register_tokens"] = state["register_tokens"]
    for i in range(count_blocks(state, "blocks.")):
        name, old = f"encoder.layer.{i}", f"blocks.{i}"
        parts = ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
        out |= {
            **_split(state, i, name),
            f"{name}.layer_scale1.lambda1": state[f"{old}.ls1.gamma"],
            f"{name}.layer_scale2.lambda1": state[f"{old}.ls2.gamma"],
            **_renamed(state, {f"{old}.{part}": f"{name}.{part}" for part in parts}),
        }
    return out
