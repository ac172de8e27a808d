"""Published checkpoint layouts: which network a weight file holds, and its tensors by timm's names.

A layout is recognised from a landmark, the key of the patch embedding, whatever stands before it;
everything else follows from the keys beside it. docs/models.md lists what is known. Keys are taken
as the network alone would have them: without what training wrapped around its modules.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.models.positions import sine_cosine
from vitfeat.text import plural

State = dict[str, Tensor]
T = TypeVar("T")

# What wrappers put between two parts of a key: DistributedDataParallel and fairscale's checkpoints,
# torch.compile, FSDP of PyTorch and of fairscale, activation checkpoints, Lightning's strategies.
_WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module",
    "_forward_module", "_wrapped_module",
}  # fmt: skip

_CHUNKED = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")

# The patch embedding's key in each layout, and a key that must stand beside it.
_LANDMARKS = {
    "timm": ("patch_embed.proj.weight", ""),
    "clip": ("conv1.weight", "class_embedding"),
    "transformers": ("embeddings.patch_embeddings.projection.weight", ""),
    "google": ("embedding/kernel", "Transformer/encoder_norm/scale"),
}

# The same of layouts that are known and not read.
_NOT_READ = {
    "embeddings.patch_embedding.weight": "transformers' names of CLIP or SigLIP",
    "embeddings.patch_embeddings.weight": "transformers' names of DINOv3",
    "patch_embed.projection.weight": "the names of OpenMMLab's toolboxes",
    "conv_proj.weight": "torchvision's names",
}

# Of two copies of a network in one file, the one that its authors evaluate: (taken, passed over).
_PREFERRED = (
    # DINO, iBOT, DINOv2 and 3: the teacher (Caron et al. 2021, section 3.1).
    (re.compile(r"\bteacher\b"), re.compile(r"\b(student|gram_teacher|model_ema)\b")),
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
    """One network found in a weight file."""

    #: ``timm``, ``clip``, ``transformers``, ``google``, or ``other`` where no landmark was found.
    layout: str
    #: Where it stands in the file: entries and key prefix, for messages.
    place: str
    #: Its tensors, without the prefix and without what wrappers put into their keys.
    state: State
    #: How many tensors beside it were left out, by where they stand.
    left: Mapping[str, int]
    #: The supervision that the keys tell, if they do.
    family: str | None = None
    #: The family whose code the network is built by, as its own tensors tell: also of a plain
    #: backbone, and of one that was trained on with another supervision.
    code: str | None = None
    #: Attention heads that the layout tells, if it does.
    heads: int | None = None
    #: Whether it is CLIP as OpenAI published it, by the sizes that stand beside its tensors.
    is_openai: bool = False
    #: What was changed of its keys, a line each for people.
    notes: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Channels of the CLS token under timm's and transformers' names; 0 where there is none."""
        tokens = (v for k, v in self.state.items() if k.endswith("cls_token") and v.ndim)
        return next((int(v.shape[-1]) for v in tokens), 0)


def find_network(content: Any, key: str | None = None, prefix: str | None = None) -> Published:
    """Find the one vision network in a weight file's content, by entry and prefix where given."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"holds a {type(content).__name__} and no mapping of names to tensors; save the "
            "network's state dict"
        )
    everything = dict(_states(content))
    states = everything
    if key is not None:
        below = f"{key}."
        states = {n: state for n, state in states.items() if n == key or n.startswith(below)}
        if not states:
            entries = ", ".join(map(str, content))
            raise ModelError(f"has no entry {key!r} (checkpoint_key); found: {entries[:200]}")
    names = {name: {k: k for k in state} for name, state in states.items()}
    if prefix is not None:
        names = {name: _starting(state, prefix) for name, state in states.items()}
        states = {
            name: {k: states[name][own] for k, own in keys.items()}
            for name, keys in names.items()
            if keys
        }
    if not states:
        below = f" under the prefix {prefix!r}" if prefix else ""
        raise ModelError(
            f"holds no tensors{below}; set checkpoint_key and checkpoint_prefix to where the "
            "backbone stands in the file"
        )
    networks = [
        (container, start, layout)
        for container, state in states.items()
        for start, layout in _landmarks(state)
    ]
    container, start, layout = _choose(networks, states)
    whole, beside = states[container], everything[container]
    members = [k for k in whole if _bare(k).startswith(_bare(start))]
    norm: list[str] = []
    if layout == "transformers" and start:
        # Heads of transformers keep the encoder's last norm beside the encoder.
        norm = [k for k in whole if _bare(k).startswith("layernorm.")]
    state, n_chunks = _numbered_through(
        {**{_bare(k): whole[k] for k in norm}, **_under(whole, start)}
    )
    taken = (prefix or "") + start
    left = Counter(map(group, set(beside) - {names[container][k] for k in (*members, *norm)}))
    for other in everything:
        if other != container:
            left[other or "top level"] += len(everything[other])
    notes = []
    if dropped := _dropped_inside(members, start):
        notes.append(f"dropped inside keys, as left there by wrappers: {', '.join(dropped)}")
    if n_chunks:
        notes.append(f"blocks of {plural(n_chunks, 'chunk')} numbered through")
    family = _family(f"{container}.{taken}", layout, beside, state)
    is_openai = layout == "clip" and set(map(_bare, beside)) >= _OPENAI_SIZES
    return Published(
        layout=layout,
        place=" ".join(filter(None, (container, taken))),
        state=state,
        left=left,
        family=family,
        code=_code(state) or family,
        heads=_heads(layout, taken, state, is_openai),
        is_openai=is_openai,
        notes=notes,
    )


def _bare(key: str) -> str:
    """Return a key without the parts that wrappers put into it."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _before(key: str, landmark: str) -> str:
    """Return what stands before a landmark in a key whose bare form ends with it, as it stands."""
    if "/" in landmark:
        return key.removesuffix(landmark)
    parts = key.split(".")
    own = [i for i, part in enumerate(parts) if part not in _WRAPPERS]
    return "".join(f"{part}." for part in parts[: own[-1 - landmark.count(".")]])


def _under(state: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return what stands under a prefix, by bare keys; two tensors of one bare key are an error."""
    start = _bare(prefix)
    taken: dict[str, str] = {}
    for key in state:
        name = _bare(key)
        if not name.startswith(start):
            continue
        name = name.removeprefix(start)
        if name in taken:
            raise ModelError(
                f"holds {name} twice, as {taken[name]} and as {key}; save the network's state dict "
                "alone"
            )
        taken[name] = key
    return {name: state[key] for name, key in taken.items()}


def _dropped_inside(keys: Iterable[str], prefix: str) -> list[str]:
    """Return the parts that wrappers put behind a prefix, in alphabetical order."""
    inside = (key.removeprefix(prefix).split(".") for key in keys)
    return sorted({part for parts in inside for part in parts if part in _WRAPPERS})


def _numbered_through(state: Mapping[str, T]) -> tuple[dict[str, T], int]:
    """Give blocks in chunks, ``blocks.{chunk}.{block}.``, the numbers of one stack.

    DINOv2 numbers a chunk's blocks as in the whole network; where numbers start anew in every
    chunk, they are counted on. The number of chunks, 0 where blocks stand in none, comes second.
    """
    parts = {key: _CHUNKED.fullmatch(key) for key in state if key.startswith("blocks.")}
    if not parts or not all(parts.values()):
        return dict(state), 0
    in_chunks = {key: (int(m[1]), int(m[2]), m[3]) for key, m in parts.items() if m}
    places = sorted({(chunk, block) for chunk, block, _ in in_chunks.values()})
    numbers = [block for _, block in places]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(places)))
    number = dict(zip(places, numbers, strict=True))
    renamed = {k: f"blocks.{number[c, b]}.{rest}" for k, (c, b, rest) in in_chunks.items()}
    return {renamed.get(k, k): v for k, v in state.items()}, len({c for c, _ in places})


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


def _starting(state: State, prefix: str) -> dict[str, str]:
    """Return, by what follows it, the keys that start with a prefix as written, or else bare."""
    literal = {k.removeprefix(prefix): k for k in state if k.startswith(prefix)}
    return literal or (_under({k: k for k in state}, prefix) if _bare(prefix) else {})


def _landmarks(state: State) -> Iterator[tuple[str, str]]:
    """Give prefix and layout of every network in a state dict."""
    keys = {_bare(key) for key in state}
    for key in state:
        for layout, (landmark, beside) in _LANDMARKS.items():
            name = _bare(key)
            start = name[: len(name) - len(landmark)]
            if not name.endswith(landmark) or (start and start[-1] not in "./"):
                continue
            if not beside or start + beside in keys:
                yield _before(key, landmark), layout


def _choose(
    networks: list[tuple[str, str, str]], states: Mapping[str, State]
) -> tuple[str, str, str]:
    for taken, passed_over in _PREFERRED:
        if any(taken.search(f"{container}.{start}") for container, start, _ in networks):
            networks = [n for n in networks if not passed_over.search(f"{n[0]}.{n[1]}")]
    if not networks:
        if flat := [k for state in states.values() for k in state if "flat_param" in k]:
            raise ModelError(
                f"holds FSDP's flattened parameters ({flat[0]}), which have lost their shapes; "
                "save the full state dict (StateDictType.FULL_STATE_DICT)"
            )
        for landmark, whose in _NOT_READ.items():
            if any(k.endswith(landmark) for state in states.values() for k in state):
                raise ModelError(
                    f"has {whose}, which vitfeat does not read; take the same weights from timm's "
                    "or open_clip's repositories, or rename them to timm's names"
                )
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
    # Before its teacher, whose heads and mask token are those of DINOv2.
    if _DINOV3 & set(state):
        return "dinov3"
    if re.search(r"\b(teacher|student)\b", place) and any("head." in k for k in whole):
        return "dinov2" if "mask_token" in state else "dino"
    if _SHARED_TABLES & set(state):
        return "beit"
    if any(re.search(r"(^|\.)decoder_pos_embed$", k) for k in whole):
        return "mae"
    if "target_encoder" in place:
        return "ijepa"
    return None


# Rotary periods are stored by models that were trained without storage tokens, too.
_DINOV3 = {"storage_tokens", "rope_embed.periods"}

# A key's end that only the code of one family writes.
_CODE_OF = {
    "register_tokens": "dinov2-reg",
    "rope.freqs_cos": "eva02",
    "masked_embed": "ibot",
}

_LAYER_SCALES = ("ls1.gamma", "layer_scale1.lambda1", "gamma_1")


def _code(state: State) -> str | None:
    """Tell whose code a network is built by from its own tensors; plain ones tell nothing."""
    if _DINOV3 & set(state):
        return "dinov3"
    for end, family in _CODE_OF.items():
        if any(k.endswith(end) for k in state):
            return family
    if any(k.startswith("cls_pt_layers.") for k in state):
        return "beitv2"
    if any(_is_beits(k, v) for k, v in state.items()):
        return "beit"
    ends = {k: next((e for e in _LAYER_SCALES if k.endswith(e)), None) for k in state}
    positions = state.get("pos_embed", state.get("embeddings.position_embeddings"))
    if any(ends.values()):
        # BEiT's has three dimensions, DINOv2's two.
        masks = [v for k, v in state.items() if k.endswith("mask_token")]
        if masks and masks[0].ndim == 2:
            return "dinov2"
        # DeiT III has positions of the grid alone, and a CLS token.
        n = positions.shape[1] if positions is not None and positions.ndim == 3 else 0
        if "cls_token" in state and "reg_token" not in state and n and math.isqrt(n) ** 2 == n:
            return "deit3"
    return _by_fixed_positions(positions)


def _is_beits(key: str, table: Tensor) -> bool:
    """Whether a tensor is a table of offsets of a square grid, and of CLS in three rows."""
    side = math.isqrt(max(0, len(table) - 3)) if table.ndim == 2 else 0
    return (
        key.endswith("relative_position_bias_table")
        and side % 2 == 1
        and (side**2 + 3 == len(table))
    )


def _by_fixed_positions(positions: Tensor | None) -> str | None:
    """Tell MoCo-v3's and MAE's code by their sines and cosines, which are never trained."""
    if positions is None or positions.ndim != 3 or positions.shape[-1] % 4:
        return None
    n, width = positions.shape[1:]
    side = math.isqrt(n)
    grid = positions[0, n - side * side :]
    if side < 2 or n - side * side > 1 or not positions.is_floating_point():
        return None
    rows_first = sine_cosine((side, side), width)[0].flatten(1).T
    # MAE and I-JEPA have the columns' half of the channels first.
    columns_first = rows_first.roll(width // 2, 1)
    for family, fixed in (("moco", rows_first), ("mae", columns_first)):
        if (grid.float() - fixed).abs().max() < _FIXED:
            return family
    return None


# Half precision rounds numbers up to 1 by less.
_FIXED = 5e-3


def _heads(layout: str, place: str, state: State, is_openai: bool) -> int | None:
    if layout == "google":
        kernels = (v for k, v in sorted(state.items()) if k.endswith("query/kernel"))
        kernel = next(kernels, None)
        return int(kernel.shape[1]) if kernel is not None and kernel.ndim > 1 else None
    if is_openai:
        # Of 64 channels each in all of its ViTs (Radford et al. 2021, table 20).
        token = state["class_embedding"]
        return token.shape[-1] // 64 if token.ndim else None
    if "base_encoder" in place or "momentum_encoder" in place:
        # Its ViT-S and ViT-B have 12 heads, which no shape tells (Chen et al. 2021, table 1).
        token = state.get("cls_token", torch.empty(0))
        return 12 if token.ndim and token.shape[-1] in (384, 768) else None
    return None
