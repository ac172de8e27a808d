"""Fitting a network found in a file into a built model: names, positions, and a strict load."""

from __future__ import annotations

import functools
import math
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vitfeat.errors import ModelError
from vitfeat.models.entry import ModelEntry
from vitfeat.models.families import FAMILIES
from vitfeat.models.layouts import Published, State, group
from vitfeat.models.positions import Grid, resize_embedding, resize_table
from vitfeat.models.timm_names import to_timm_names
from vitfeat.text import plural, some

Note = Callable[[str], None]
Filter = Callable[..., Any]

_BUILDER = "build_model_with_cfg"
_lock = threading.Lock()

_WEIGHTS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

# Tensors that published files and training code hold among a backbone's: heads, projectors and
# predictors, decoders, mask tokens, prototypes, queues, text towers. None is on the way through the
# blocks; anything else left over is an error.
_NOT_BACKBONE = re.compile(
    r"^(heads?|head_.*|fc|fc_norm|classifier|linear|pre_logits|pooler|cls_pt_.*|lm_head.*|norm_pix"
    r"|mask_token|masked_embed|mask_embed|decoder|decoder_.*|proj|projector|projectors|projection"
    r"|projection_head|predictor|predictor_.*|prototypes|dino_head|ibot_head|mim_head"
    r"|local_cls_norm|contrastive_head|queue|queue_ptr|text|text_.*|logit_scale|logit_bias)([./]|$)"
)

# What quantisers put beside weights, or in their place (PyTorch's own, GPTQ, bitsandbytes, FP8).
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|zero_point|_packed_params.*|SCB|weight_scale(_inv)?|weight\.absmax)$"
)

_POSITIONS = ("pos_embed", "positional_embedding", "relative_position_bias_table")

# What a layout is called in messages.
_LAYOUT_NAMES = {
    "timm": "timm's names",
    "clip": "OpenAI CLIP's names",
    "transformers": "transformers' names",
    "google": "Google's names (JAX)",
    "other": "names of its own",
}


@contextmanager
def noted_filters() -> Iterator[list[Filter | None]]:
    """Give a list that gets the filter of every timm model that is built inside, in their order.

    timm's builders hand it to one function and keep it nowhere, and several architectures of one
    class have filters of their own (FlexiViT's positions, MobileCLIP's names). A network that a
    model builds as a part of itself is none of them. Models that other threads build at the time
    wait for nobody, but may be noted too.
    """
    filters: list[Filter | None] = []
    depth = 0
    with _lock:
        modules = [
            m
            for name, m in sys.modules.copy().items()
            if name.startswith("timm.models.") and hasattr(m, _BUILDER)
        ]
        build = getattr(modules[0], _BUILDER) if modules else None

        def note(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if depth == 0:
                filters.append(kwargs.get("pretrained_filter_fn"))
            depth += 1
            try:
                return build(*args, **kwargs) if build else None
            finally:
                depth -= 1

        try:
            for module in modules:
                setattr(module, _BUILDER, note)
            yield filters
        finally:
            for module in modules:
                setattr(module, _BUILDER, build)


def resampling(adapt: Filter | None) -> Mapping[str, Any]:
    """Return how a filter resamples positions, where that is other than timm's way.

    ``interpolation``, ``antialias`` and ``align_corners``, as its architecture binds them.
    """
    bound = adapt.keywords if isinstance(adapt, functools.partial) else {}
    return {k: v for k, v in bound.items() if k in ("interpolation", "antialias", "align_corners")}


def refuse_unfit(state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that nothing can be copied from as it is: quantised, sparse, empty shells."""
    no_weights = {
        key: tensor
        for key, tensor in state.items()
        if tensor.is_meta
        or tensor.is_quantized
        or tensor.layout is not torch.strided
        or tensor.is_complex()
        or (tensor.is_floating_point() and tensor.dtype not in _WEIGHTS)
    }
    if no_weights:
        raise _unfit(no_weights)


def _unfit(state: Mapping[str, Tensor]) -> ModelError:
    """Return the error about tensors of no type of weights."""
    kinds = sorted({_kind(tensor) for tensor in state.values()})
    first, *more = sorted(state)
    return ModelError(
        f"holds weights of the type {' and '.join(kinds)} ({first}"
        f"{f' and {len(more)} more' if more else ''}), which are no weights by themselves: they "
        "were quantised, packed or left out; save the network's own state dict in float32, float16 "
        "or bfloat16"
    )


def _kind(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "meta (no numbers at all)"
    if tensor.layout is not torch.strided:
        return f"{name}, sparse"
    return name


def fill_timm(
    entry: ModelEntry, model: Any, published: Published, adapt: Filter | None, note: Note
) -> None:
    """Load a network into a timm model whole, and say what was left out, renamed and resized.

    `adapt` is timm's own filter of the architecture, which knows the names of further releases.
    """
    state = to_timm_names(published)
    if any(".ls1." in k for k in model.state_dict()):
        # DeiT III's own files call LayerScale so.
        state = {re.sub(r"\.gamma_([12])$", r".ls\1.gamma", k): v for k, v in state.items()}
    if published.code == "dinov3" and "storage_tokens" not in state and "cls_token" in state:
        # timm's filter knows DINOv3 by these, which it may be trained without.
        state["storage_tokens"] = state["cls_token"][:, :0]
    _check_patch(entry, model, state)
    _check_dinov3_biases(model, state)
    _take_periods(model, state)
    fitted, resized = _resize(entry, model, published, state, adapt)
    try:
        # A copy: some filters take out of what they are given.
        adapted = adapt(dict(state), model) if adapt else state
    except Exception as error:  # the filters trust their input: a foreign one breaks them anyhow
        _check(entry, model, state)
        raise ModelError(f"is not a checkpoint of {entry.name}: {error}") from error
    whole = {k: v for k, v in adapted.items() if v.numel()} | _kept(model, state, fitted)
    # What a filter leaves out is said as what is left out here.
    whole |= {k: v for k, v in state.items() if _NOT_BACKBONE.match(k) and k not in whole}
    _load(entry, model, published, whole, resized, note)


def _kept(model: Any, state: State, fitted: Iterable[str]) -> State:
    """Return the positions that were fitted here: a filter may fit what fits already once more.

    It takes a grid for another of as many tokens, 7 x 28 for 14 x 14.
    """
    kept = {key: state[key] for key in fitted}
    if "pos_embed" in kept:
        # Without CLS's position, where the filter has added it to CLS.
        kept["pos_embed"] = kept["pos_embed"][:, -model.pos_embed.shape[1] :]
    return kept


def fill_open_clip(entry: ModelEntry, visual: Any, published: Published, note: Note) -> None:
    """Load a network into open_clip's own image tower whole; as :func:`fill_timm`."""
    if published.layout not in ("clip", "other"):
        raise ModelError(
            f"has {_LAYOUT_NAMES[published.layout]}, {entry.name} of open_clip needs "
            f"{_LAYOUT_NAMES['clip']}"
        )
    state = dict(published.state)
    resized = []
    if (found := state.get("positional_embedding")) is not None and found.ndim == 2:
        grid = tuple(visual.grid_size)
        _check_grid(entry, grid)
        n_prefix = len(visual.positional_embedding) - math.prod(grid)
        fitted, line = _fit(entry, published, found[None], grid, n_prefix)
        state["positional_embedding"] = fitted[0]
        resized = [f"positional_embedding {line}"] if line else []
    _load(entry, visual, published, state, resized, note)


def _resize(
    entry: ModelEntry, model: Any, published: Published, state: State, adapt: Filter | None
) -> tuple[list[str], list[str]]:
    """Fit all positions of a state dict with timm's names to the model's grid, in place.

    Returns the keys that are fitted now, and a line for each that was not before.
    """
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None:
        return [], []
    grid = tuple(grid)
    _check_grid(entry, grid)
    fitted, lines = [], []
    found = state.get("pos_embed")
    if found is not None and found.ndim == 3 and getattr(model, "pos_embed", None) is not None:
        n_prefix = model.pos_embed.shape[1] - math.prod(grid)
        if "register_tokens" in state:
            # DINOv2 adds CLS's position to CLS; timm has both in one.
            n_prefix = 1
        state["pos_embed"], line = _fit(entry, published, found, grid, n_prefix, resampling(adapt))
        fitted += ["pos_embed"] if state["pos_embed"].shape[1] == n_prefix + math.prod(grid) else []
        lines += [f"pos_embed {line}"] if line else []
    if _way(entry, published) == "beit":
        wanted = model.state_dict()
        for key, table in state.items():
            if not key.endswith("relative_position_bias_table") or key not in wanted:
                continue
            old = _table_grid(entry, table, grid, n_extra=3) if table.ndim == 2 else None
            if old is None:
                continue
            state[key] = resize_table(table, old, grid)
            fitted.append(key)
            lines += [f"{key} {_arrow(old, grid)} (beit)"] if old != grid else []
    return fitted, lines


def _check_grid(entry: ModelEntry, grid: Grid) -> None:
    if min(grid) < 1:
        raise ModelError(
            f"cannot be fitted to images of {entry.image_size} pixels, which are smaller than a "
            "patch; set a larger image_size"
        )


def _way(entry: ModelEntry, published: Published) -> str:
    """Choose how positions are fitted: as the entry says, or as its file, or as its family."""
    if entry.positions:
        return entry.positions
    if published.layout == "google":
        return "google"
    if any(k.endswith(("register_tokens", "reg_token")) for k in published.state):
        # DINOv2 came to antialias with its registers.
        return "timm"
    told = FAMILIES[published.code].positions if published.code else None
    return told or entry.resize_positions or "timm"


def _fit(
    entry: ModelEntry,
    published: Published,
    embedding: Tensor,
    grid: Grid,
    n_prefix: int,
    bound: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Tensor, str]:
    """Fit an embedding (1, prefix + old grid, channel); with a line, or none if it fits already."""
    old = _embedding_grid(entry, embedding.shape[1] - n_prefix, grid)
    if old is None or old == grid:
        return embedding, ""
    way = _way(entry, published)
    return resize_embedding(embedding, old, grid, way, bound), f"{_arrow(old, grid)} ({way})"


def _arrow(old: Grid, new: Grid) -> str:
    return f"{old[0]} x {old[1]} -> {new[0]} x {new[1]}"


def _embedding_grid(entry: ModelEntry, n_patches: int, grid: Grid) -> Grid | None:
    """Find the grid of so many positions; square unless the entry says otherwise."""
    if (told := _told_grid(entry, grid)) is not None:
        return told if math.prod(told) == n_patches else None
    side = math.isqrt(max(0, n_patches))
    return (side, side) if side > 0 and side * side == n_patches else None


def _table_grid(entry: ModelEntry, table: Tensor, grid: Grid, n_extra: int) -> Grid | None:
    """Find the grid of a table of relative positions."""
    if (told := _told_grid(entry, grid)) is not None:
        return told
    length = len(table) - n_extra
    side = math.isqrt(max(0, length))
    return ((side + 1) // 2, (side + 1) // 2) if side * side == length and side % 2 else None


def _told_grid(entry: ModelEntry, grid: Grid) -> Grid | None:
    """Return the grid of the images that the entry says the weights were trained on."""
    if entry.checkpoint_size is None or entry.input_size is None:
        return None
    sides = zip(entry.checkpoint_size, entry.input_size, grid, strict=True)
    rows, columns = (trained * cells // asked for trained, asked, cells in sides)
    return rows, columns


def _check_patch(entry: ModelEntry, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse patches of another size, which timm would resample without a word."""
    name = "patch_embed.proj.weight"
    found, wanted = state.get(name), model.state_dict().get(name)
    if found is None or wanted is None or found.ndim != 4:
        return
    if found.shape[-2:] != wanted.shape[-2:]:
        raise ModelError(
            f"has patches of {tuple(found.shape[-2:])} pixels, {entry.name} of "
            f"{tuple(wanted.shape[-2:])}"
        )


def _check_dinov3_biases(model: nn.Module, state: State) -> None:
    """Refuse to lose biases: timm has DINOv3 without them too, and its filter drops them."""
    if "storage_tokens" not in state or any(k.endswith("q_bias") for k in model.state_dict()):
        return
    for key, bias in state.items():
        # Keys' biases are stored, and masked.
        if key.endswith("qkv.bias") and any(part.any() for part in bias.chunk(3)[::2]):
            raise ModelError(
                f"has biases of queries and values ({key}), which this architecture drops; take "
                "the one whose name has _qkvb"
            )


@torch.no_grad()
def _take_periods(model: Any, state: State) -> None:
    """Take DINOv3's rotary periods from its own files: they were rounded to bfloat16 in training.

    timm computes them anew, exactly, which moves features by some 1e-3.
    """
    found = state.get("rope_embed.periods")
    rope: Any = getattr(model, "rope", None)
    periods = getattr(rope, "periods", None)
    if found is None or not isinstance(periods, Tensor):
        return
    if found.shape != periods.shape:
        raise ModelError(
            f"has rotary periods for heads of {4 * found.numel()} channels, the architecture's "
            f"have {4 * periods.numel()}"
        )
    periods.copy_(found)


def _load(
    entry: ModelEntry,
    model: nn.Module,
    published: Published,
    state: Mapping[str, Tensor],
    resized: list[str],
    note: Note,
) -> None:
    """Load a state dict whole, and say what was done."""
    _check(entry, model, state)
    wanted = model.state_dict()
    model.load_state_dict({k: state[k] for k in wanted})

    renamed = sorted(set(wanted) - set(published.state))
    place = f" at {published.place}" if published.place else ""
    for line in published.notes:
        note(f"{entry.id}: {line}")
    note(
        f"{entry.id}: {plural(len(wanted), 'tensor')} under {_LAYOUT_NAMES[published.layout]}"
        f"{place}, {len(renamed)} renamed"
    )
    left = {**published.left, **Counter(group(k) for k in set(state) - set(wanted))}
    if left:
        parts = ", ".join(f"{name} ({count})" for name, count in sorted(left.items()))
        note(f"{entry.id}: left out, no part of the backbone: {parts}")
    for line in resized:
        note(f"{entry.id}: interpolated: {line}")


def _check(entry: ModelEntry, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Hold a state dict to a model: nothing missing, nothing misshapen, nothing unexplained."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(k for k in set(state) - set(wanted) if not _NOT_BACKBONE.match(k))
    misshapen = sorted(k for k in set(wanted) & set(state) if state[k].shape != wanted[k].shape)
    mistyped = [
        k
        for k in sorted(set(wanted) & set(state))
        if state[k].is_floating_point() != wanted[k].is_floating_point()
    ]
    if mistyped:
        raise _unfit({k: state[k] for k in mistyped})
    shapes = [f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}" for k in misshapen]
    problems = [
        f"{len(keys)} {what} ({some(keys, 4)})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if not problems:
        return
    if any("lora_" in k for k in unexpected):
        problems.append("it holds LoRA's adapters; merge them into the network before you save it")
    if any(_QUANTISED.search(k) for k in unexpected):
        problems.append(
            "it is quantised; save the network's own state dict in float32, float16 or bfloat16"
        )
    if unexpected and not missing and not misshapen:
        problems.append(
            "if these are no part of the network (of a loss, say), save its state dict without "
            "them; if they are, take the architecture, or args, that has them"
        )
    if not missing and not unexpected and all(k.endswith(_POSITIONS) for k in misshapen):
        problems.append(
            "if it was trained on images that are not square, set checkpoint_size to their "
            "[height, width]"
        )
    raise ModelError(f"does not fit {entry.name}: keys {'; '.join(problems)}")
