"""Published checkpoint layouts: which network a weight file holds, and its tensors by timm's names.

A layout is recognised from a landmark, the key of the patch embedding, whatever stands before it;
everything else follows from the keys beside it. docs/models.md lists what is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitfeat.errors import ModelError

State = dict[str, Tensor]

# The patch embedding's key in each layout, and a key that must stand beside it.
_LANDMARKS = {
    "timm": ("patch_embed.proj.weight", ""),
    "clip": ("conv1.weight", "class_embedding"),
    "transformers": ("embeddings.patch_embeddings.projection.weight", ""),
    "google": ("embedding/kernel", "Transformer/encoder_norm/scale"),
}

# Of two copies of a network in one file, the one that its authors evaluate: (taken, passed over).
_PREFERRED = (
    # DINO, iBOT, DINOv2: the teacher (Caron et al. 2021, section 3.1).
    (re.compile(r"\bteacher\b"), re.compile(r"\bstudent\b")),
    # I-JEPA: the target encoder (Assran et al. 2023, appendix A.1).
    (re.compile(r"\btarget_encoder\b"), re.compile(r"^encoder\b")),
    # MoCo-v3: the base encoder (Chen et al. 2021, section 3).
    (re.compile(r"\bbase_encoder\b"), re.compile(r"\bmomentum_encoder\b")),
)


_OPENAI_SIZES = {"input_resolution", "context_length", "vocab_size"}

# One table of relative positions for all blocks is BEiT's pretraining, in its own and in
# transformers' names; fine-tuned models have one in every block.
_SHARED_TABLES = {
    "rel_pos_bias.relative_position_bias_table",
    "encoder.relative_position_bias.relative_position_bias_table",
}


@dataclass(frozen=True)
class Published:
    """One network found in a weight file.

    Attributes
    ----------
    layout
        ``timm``, ``clip``, ``transformers``, ``google``, or ``other`` when no landmark was found.
    place
        Where it stands in the file: entries and key prefix, for messages.
    state
        Its tensors, without the prefix.
    left
        How many tensors beside it were left out, by where they stand.
    family
        The supervision that the keys tell, if they do.
    heads
        Attention heads that the layout tells, if it does.
    is_openai
        Whether it is CLIP as OpenAI published it, by the sizes that stand beside its tensors.
    """

    layout: str
    place: str
    state: State
    left: Mapping[str, int]
    family: str | None = None
    heads: int | None = None
    is_openai: bool = False


def find_network(content: Any, key: str | None = None, prefix: str | None = None) -> Published:
    """Find the vision network in a weight file's content.

    Parameters
    ----------
    content
        What :func:`vitfeat.weights.weightfile.read_weight_file` gives.
    key
        The entry to look in; all if not given.
    prefix
        Keys that start so belong to the network; found from the keys if not given.

    Raises
    ------
    ModelError
        When there is none, or several and nothing says which is meant.
    """
    everything = dict(_states(content))
    states = everything
    if key is not None:
        states = {name: state for name, state in states.items() if name == key}
        if not states:
            found = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no mapping"
            raise ModelError(f"has no entry {key!r} (checkpoint_key); found: {found[:200]}")
    if prefix is not None:
        states = {name: _under(state, prefix) for name, state in states.items()}
        states = {name: state for name, state in states.items() if state}
    if not states:
        under = f" under the prefix {prefix!r}" if prefix else ""
        raise ModelError(
            f"holds no tensors{under}; set checkpoint_key and checkpoint_prefix to where the "
            "backbone stands in the file"
        )
    found_networks = [
        (container, start, layout)
        for container, state in states.items()
        for start, layout in _landmarks(state)
    ]
    chosen = _choose(found_networks, states)
    container, start, layout = chosen
    whole = states[container]
    state, norm = _under(whole, start), {}
    if layout == "transformers":
        # Heads of transformers keep the encoder's last norm beside the encoder.
        norm = {k: v for k, v in whole.items() if k.startswith("layernorm.")} if start else {}
        state = {**norm, **state}
    taken = (prefix or "") + start
    beside = everything[container]
    left = Counter(
        group(k)
        for k in beside
        if not k.startswith(taken) and not (norm and k.startswith("layernorm."))
    )
    for other in everything:
        if other != container:
            left[other or "top level"] += len(everything[other])
    place = " ".join(filter(None, (container, taken)))
    return Published(
        layout=layout,
        place=place,
        state=state,
        left=left,
        family=_family(f"{container}.{taken}", layout, beside, state),
        heads=_heads(layout, taken, state),
        is_openai=layout == "clip" and set(beside) >= _OPENAI_SIZES,
    )


def _states(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Walk nested mappings and give those that hold tensors, by the path of their entries."""
    if not isinstance(content, Mapping):
        return
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if state:
        yield path, state
    if depth < 2:
        for key, value in content.items():
            # An optimizer's state holds as many tensors as the network, by number.
            if isinstance(key, str) and not key.startswith("optim"):
                yield from _states(value, f"{path}.{key}" if path else key, depth + 1)


def _under(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _landmarks(state: State) -> Iterator[tuple[str, str]]:
    """Give prefix and layout of every network in a state dict."""
    for key in state:
        for layout, (landmark, beside) in _LANDMARKS.items():
            start = key[: len(key) - len(landmark)]
            if not key.endswith(landmark) or (start and start[-1] not in "./"):
                continue
            if not beside or start + beside in state:
                yield start, layout


def _choose(
    networks: list[tuple[str, str, str]], states: Mapping[str, State]
) -> tuple[str, str, str]:
    for taken, passed_over in _PREFERRED:
        if any(taken.search(f"{container}.{start}") for container, start, _ in networks):
            networks = [n for n in networks if not passed_over.search(f"{n[0]}.{n[1]}")]
    if not networks:
        # No landmark: timm knows further layouts, and says what is missing.
        if len(states) == 1:
            return next(iter(states)), "", "other"
        raise ModelError(
            f"holds no Vision Transformer under a known name in its entries ({', '.join(states)}); "
            "set checkpoint_key to the one with the backbone"
        )
    if len(networks) > 1:
        names = ", ".join(
            " ".join(filter(None, (container, start))) or "its top level"
            for container, start, _ in networks
        )
        raise ModelError(
            f"holds several networks ({names}); set checkpoint_key and checkpoint_prefix to the "
            "one that is meant"
        )
    return networks[0]


def group(key: str) -> str:
    """Name the part of a network that a tensor belongs to: the first two levels of its key."""
    return ".".join(key.split(".")[:-1][:2]) or key


def _family(place: str, layout: str, whole: State, state: State) -> str | None:
    """Tell the supervision where keys do; most layouts are shared by several."""
    if layout == "clip":
        return "clip"
    if layout == "google":
        return "supervised"
    if "base_encoder" in place or "momentum_encoder" in place:
        return "moco"
    if re.search(r"\b(teacher|student)\b", place) and any("head." in k for k in whole):
        return "dinov2" if "mask_token" in state else "dino"
    if _SHARED_TABLES & set(state):
        return "beit"
    if any(k.startswith("decoder_pos_embed") for k in state):
        return "mae"
    if "storage_tokens" in state:
        return "dinov3"
    if "target_encoder" in place:
        return "ijepa"
    return None


def _heads(layout: str, place: str, state: State) -> int | None:
    if layout == "google":
        kernel = next(v for k, v in sorted(state.items()) if k.endswith("query/kernel"))
        return int(kernel.shape[1])
    if "base_encoder" in place or "momentum_encoder" in place:
        # Its ViT-S and ViT-B have 12 heads, which no shape tells (Chen et al. 2021, table 1).
        return 12 if state["cls_token"].shape[-1] in (384, 768) else None
    return None


def to_timm_names(published: Published) -> State:
    """Rename a network's tensors to what timm calls them, joining and turning where need be.

    Raises
    ------
    ModelError
        When tensors of the layout are missing or of shapes that it does not have.
    """
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
        parts = {
            (part, kind): joined.pop(f"{name}{part}.{kind}", None)
            for part in ("query", "key", "value")
            for kind in ("weight", "bias")
        }
        weights, biases = (
            [parts[part, kind] for part in ("query", "key", "value")] for kind in ("weight", "bias")
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


def _from_google(state: State) -> State:
    """Turn Flax's kernels (input, output) and heads apart into PyTorch's (output, input)."""
    renamed = {
        "cls_token": state["cls"],
        "pos_embed": state["Transformer/posembed_input/pos_embedding"],
        # Height, width, input, output.
        "patch_embed.proj.weight": state["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": state["embedding/bias"],
        "norm.weight": state["Transformer/encoder_norm/scale"],
        "norm.bias": state["Transformer/encoder_norm/bias"],
    }
    used = {
        "cls", "Transformer/posembed_input/pos_embedding", "embedding/kernel", "embedding/bias",
        "Transformer/encoder_norm/scale", "Transformer/encoder_norm/bias",
    }  # fmt: skip
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
