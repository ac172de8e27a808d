"""From a catalogue entry to a loaded :class:`Backbone`.

Weights that do not load completely are an error, never a silently random model.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.structure import from_open_clip, from_timm
from vitfeat.text import nearest

# Tensors that published files hold beside the backbone; anything else left over is an error.
_NOT_BACKBONE = re.compile(
    r"^(head|heads|head_drop|fc_norm|fc|classifier|pre_logits|mask_token|lm_head|decoder_.*|norm_pix)"
    r"(\.|$)"
)


def load_backbone(entry: ModelEntry) -> Backbone:
    """Load a model on the CPU, in evaluation mode, without gradients.

    Raises
    ------
    ModelError
        When the architecture is unknown or no plain ViT, or the weights are absent or do not fit.
    """
    backbone = _LOADERS[entry.source](entry)
    backbone.module.eval().requires_grad_(False)
    return backbone


def _load_demo(entry: ModelEntry) -> Backbone:
    from vitfeat.demo import network

    model = network.load(entry.name)
    return from_timm(entry, model, mean=network.MEAN, std=network.STD, interpolation="bicubic")


def _load_timm(entry: ModelEntry) -> Backbone:
    import timm
    from timm.data import resolve_model_data_config

    architecture = entry.name.split(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(
            f"model {entry.id}: timm knows no architecture {architecture!r}"
            f"{nearest(architecture, timm.list_models())}"
        )
    arguments = {"num_classes": 0, **entry.args}
    if entry.image_size is not None:
        arguments["img_size"] = entry.image_size
    model = _build(
        entry,
        lambda: timm.create_model(entry.name, pretrained=bool(entry.pretrained), **arguments),
    )
    if entry.checkpoint:
        state = _read_checkpoint(entry)
        _check_patch(entry, model, state)
        try:
            # timm's own filter renames published layouts and resizes position embeddings.
            adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
            state = adapt(state, model) if adapt else state
        except (
            Exception
        ) as error:  # the filters trust their input: a foreign one breaks them anyhow
            raise ModelError(
                f"model {entry.id}: {entry.checkpoint} is not a checkpoint of {architecture}: "
                f"{error}"
            ) from error
        _load_state(entry, model, state)
    data = resolve_model_data_config(model)
    return from_timm(
        entry, model, mean=data["mean"], std=data["std"], interpolation=data["interpolation"]
    )


def _load_open_clip(entry: ModelEntry) -> Backbone:
    import open_clip

    if entry.name not in open_clip.list_models():
        raise ModelError(
            f"model {entry.id}: open_clip knows no architecture {entry.name!r}"
            f"{nearest(entry.name, open_clip.list_models())}"
        )
    # open_clip takes a tag or a path of a file in one argument.
    weights = _existing(entry) if entry.checkpoint else (entry.pretrained or None)
    arguments = {"force_image_size": entry.image_size} if entry.image_size else {}
    model = _build(
        entry,
        lambda: open_clip.create_model(
            entry.name,
            pretrained=weights,
            require_pretrained=weights is not None,
            weights_only=True,
            **arguments,
        ),
    )
    return from_open_clip(entry, model.visual)


_LOADERS: dict[str, Callable[[ModelEntry], Backbone]] = {
    "timm": _load_timm,
    "open_clip": _load_open_clip,
    "demo": _load_demo,
}


def _build(entry: ModelEntry, create: Callable[[], Any]) -> Any:
    """Call a library's constructor under the entry's seed, turning its failures into one line."""
    try:
        # The seed decides an untrained network's weights; the caller's generator stays as it was.
        with torch.random.fork_rng():
            torch.manual_seed(entry.seed)
            return create()
    except OSError as error:  # every hub client raises a child of OSError when it has no network
        raise ModelError(
            f"model {entry.id}: the published weights of {entry.name} could not be fetched "
            f"({error}); fetch them where there is a network, or give `checkpoint:` a local file"
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"model {entry.id}: {entry.name} could not be built: {error}") from error


def _existing(entry: ModelEntry) -> str:
    path = Path(str(entry.checkpoint))
    if not path.is_file():
        raise ModelError(
            f"model {entry.id}: no checkpoint file {path}; place the weights there or set "
            f"catalog.{entry.id}.checkpoint"
        )
    return str(path)


def _read_checkpoint(entry: ModelEntry) -> dict[str, Tensor]:
    """Read a state dict from safetensors or a pickled file; pickles can run no code."""
    path = _existing(entry)
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError) as error:
        # torch's own words here advise to run what the file says.
        raise ModelError(
            f"model {entry.id}: {path} is not a readable weight file: it is empty, damaged or of "
            "another kind, or holds Python objects beside tensors, which vitfeat never loads as "
            "they can run code"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ModelError(
            f"model {entry.id}: {path} is not a readable weight file: {reason}"
        ) from error
    except Exception as error:  # safetensors raises its own class, a direct child of Exception
        if type(error).__name__ != "SafetensorError":
            raise
        raise ModelError(
            f"model {entry.id}: {path} is not a readable safetensors file: {error}"
        ) from error
    if entry.checkpoint_key is not None:
        if not isinstance(content, Mapping) or entry.checkpoint_key not in content:
            found = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no mapping"
            raise ModelError(
                f"model {entry.id}: {path} has no entry {entry.checkpoint_key!r} "
                f"(checkpoint_key); found: {found[:200]}"
            )
        content = content[entry.checkpoint_key]
    prefix = entry.checkpoint_prefix or ""
    state = {
        key.removeprefix(prefix): value
        for key, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(key, str) and key.startswith(prefix) and isinstance(value, Tensor)
    }
    if not state:
        raise ModelError(
            f"model {entry.id}: {path} holds no tensors"
            + (f" under the prefix {prefix!r}" if prefix else "")
            + "; set checkpoint_key and checkpoint_prefix to where the backbone stands in the file"
        )
    return state


def _check_patch(entry: ModelEntry, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse patches of another size, which timm would resample without a word."""
    name = "patch_embed.proj.weight"
    found, wanted = state.get(name), model.state_dict().get(name)
    if found is None or wanted is None or found.ndim != 4:
        return
    if found.shape[-2:] != wanted.shape[-2:]:
        raise ModelError(
            f"model {entry.id}: the checkpoint {entry.checkpoint} has patches of "
            f"{tuple(found.shape[-2:])} pixels, {entry.name} of {tuple(wanted.shape[-2:])}"
        )


def _load_state(entry: ModelEntry, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whole: nothing missing, nothing misshapen, nothing unexplained."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(k for k in set(state) - set(wanted) if not _NOT_BACKBONE.match(k))
    misshapen = sorted(
        f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}"
        for k in set(wanted) & set(state)
        if state[k].shape != wanted[k].shape
    )
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise ModelError(
            f"model {entry.id}: the checkpoint {entry.checkpoint} does not fit {entry.name}: keys "
            + "; ".join(problems)
        )
    model.load_state_dict({k: state[k] for k in wanted})
