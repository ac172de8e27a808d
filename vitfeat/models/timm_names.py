"""Tensors of published layouts, joined, turned and renamed to what timm calls them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from vitfeat.errors import ModelError
from vitfeat.models.layouts import Published, State


def to_timm_names(published: Published) -> State:
    """Rename a network's tensors to what timm calls them, joining and turning where need be."""
    convert = _CONVERTERS.get(published.layout)
    if convert is None:
        return dict(published.state)
    try:
        return convert(published.state)
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        raise ModelError(
            f"is not whole: the layout {published.layout!r} was recognised, but a tensor is "
            f"missing or misshapen ({error})"
        ) from error


def _renamed(state: State, rules: tuple[tuple[str, str], ...]) -> State:
    """Apply every rule, pattern and replacement, to every key in turn."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


_CLIP_RULES = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "head.weight"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def _from_clip(state: State) -> State:
    renamed = _renamed(state, _CLIP_RULES)
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    renamed["pos_embed"] = renamed["pos_embed"][None]
    return renamed


_TRANSFORMERS_RULES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.", ""),
    (r"^encoder\.relative_position_bias\.", "rel_pos_bias."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"\.attention\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
)


def _from_transformers(state: State) -> State:
    renamed = _renamed(state, _TRANSFORMERS_RULES)
    joined = {k: v for k, v in renamed.items() if not k.endswith("relative_position_index")}
    for name in [k.removesuffix("query.weight") for k in renamed if k.endswith(".query.weight")]:
        weights, biases = (
            [joined.pop(f"{name}{part}.{kind}", None) for part in ("query", "key", "value")]
            for kind in ("weight", "bias")
        )
        if any(w is None for w in weights):
            raise KeyError(f"{name}key.weight or {name}value.weight")
        joined[f"{name}qkv.weight"] = torch.cat([w for w in weights if w is not None])
        if all(b is not None for b in biases):
            joined[f"{name}qkv.bias"] = torch.cat([b for b in biases if b is not None])
        elif biases[0] is not None and biases[2] is not None:
            # BEiT has no bias on its keys: a constant in every logit of a row changes nothing.
            joined[f"{name}q_bias"], joined[f"{name}v_bias"] = biases[0], biases[2]
    return joined


_GOOGLE_NAMES = {
    "cls_token": "cls",
    "pos_embed": "Transformer/posembed_input/pos_embedding",
    "patch_embed.proj.weight": "embedding/kernel",
    "patch_embed.proj.bias": "embedding/bias",
    "norm.weight": "Transformer/encoder_norm/scale",
    "norm.bias": "Transformer/encoder_norm/bias",
}


def _from_google(state: State) -> State:
    """Turn Flax's kernels (input, output) and heads apart into PyTorch's (output, input)."""
    renamed = {name: state[key] for name, key in _GOOGLE_NAMES.items()}
    # Height, width, input, output.
    kernel = renamed["patch_embed.proj.weight"]
    renamed["patch_embed.proj.weight"] = kernel.permute(3, 2, 0, 1)
    used = set(_GOOGLE_NAMES.values())
    pattern = re.compile(r"Transformer/encoderblock_(\d+)/")
    blocks = sorted({int(m.group(1)) for k in state if (m := pattern.match(k))})
    for number in blocks:
        start = f"Transformer/encoderblock_{number}/"
        block = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        used |= {start + k for k in block}
        try:
            converted = _google_block(block)
        except KeyError as error:
            raise KeyError(start + error.args[0]) from error
        renamed |= {f"blocks.{number}.{k}": v for k, v in converted.items()}
    return {**{k: v for k, v in state.items() if k not in used}, **renamed}


def _google_block(block: State) -> State:
    # Modules are numbered in the order of their making: LayerNorm_0 and LayerNorm_2, for example.
    norms = sorted({k.split("/")[0] for k in block if k.startswith("LayerNorm_")})
    attention = next(k.split("/")[0] for k in block if k.startswith("MultiHead"))
    mlp = next(k.split("/")[0] for k in block if k.startswith("MlpBlock_"))
    qkv = [f"{attention}/{part}" for part in ("query", "key", "value")]
    converted = {
        "attn.qkv.weight": torch.cat([block[f"{p}/kernel"].flatten(1).T for p in qkv]),
        "attn.qkv.bias": torch.cat([block[f"{p}/bias"].flatten() for p in qkv]),
        "attn.proj.weight": block[f"{attention}/out/kernel"].flatten(0, 1).T,
        "attn.proj.bias": block[f"{attention}/out/bias"],
    }
    for number, norm in enumerate(norms, 1):
        converted[f"norm{number}.weight"] = block[f"{norm}/scale"]
        converted[f"norm{number}.bias"] = block[f"{norm}/bias"]
    for number in (1, 2):
        converted[f"mlp.fc{number}.weight"] = block[f"{mlp}/Dense_{number - 1}/kernel"].T
        converted[f"mlp.fc{number}.bias"] = block[f"{mlp}/Dense_{number - 1}/bias"]
    return converted


_CONVERTERS: dict[str, Callable[[State], State]] = {
    "clip": _from_clip,
    "transformers": _from_transformers,
    "google": _from_google,
}
