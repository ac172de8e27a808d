"""From a catalogue entry to a loaded :class:`Backbone`.

All weights come the same way: a file, the network found in it, its tensors by the library's names,
positions fitted to the grid, and a strict load. Weights that do not load completely are an error,
never a silently random model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitfeat.errors import ModelError
from vitfeat.files import sha256_of
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry, find_entry
from vitfeat.models.fitting import fill_open_clip, fill_timm
from vitfeat.models.hub import fetch
from vitfeat.models.layouts import Published, find_network
from vitfeat.models.structure import from_open_clip, from_timm
from vitfeat.models.timm_filter import noted_filters
from vitfeat.text import nearest
from vitfeat.weights.weightfile import read_weight_file

Log = Callable[[str], None]

# Families whose published files tell one another apart; of any other name nothing is expected.
_TOLD_FAMILIES = {
    "supervised", "clip", "dino", "moco", "mae", "beit", "dinov2", "dinov2-reg", "dinov3",
    "siglip2", "eva02", "deit3", "ijepa",
}  # fmt: skip


# Families whose files have the same keys.
_MAY_BE = {"dinov2": {"dinov2", "dinov2-reg"}}


@dataclass(frozen=True)
class Weights:
    """A weight file and what is to be known of where it comes from.

    Attributes
    ----------
    path
        The file.
    origin
        ``file``, ``sha256``, and of fetched ones ``repository`` and ``revision``, or ``url``.
    """

    path: Path
    origin: Mapping[str, Any]


def load_backbone(
    entry: ModelEntry | str, *, folder: Path = Path("weights"), log: Log = lambda _: None
) -> Backbone:
    """Load a model on the CPU, in evaluation mode, without gradients.

    Parameters
    ----------
    entry
        The model, or its id in the catalogue.
    folder
        Where records of fetched weights are (:mod:`vitfeat.weights.fetch`); published weights that
        are not on this machine are fetched.
    log
        Takes lines for people: what the weight file held, what was left out, renamed and resized.

    Raises
    ------
    ModelError
        When the architecture is unknown or no plain ViT, or the weights are absent or do not fit.
    """
    if isinstance(entry, str):
        entry = find_entry(entry)
    backbone = _LOADERS[entry.source](entry, folder, log)
    backbone.module.eval().requires_grad_(False)
    return replace(backbone, at_size=partial(_at_size, backbone, folder))


def _at_size(backbone: Backbone, folder: Path, size: tuple[int, int]) -> Backbone:
    """Load the entry anew for another input size, and share what does not depend on it."""
    entry = replace(backbone.entry, image_size=size)
    resized = _LOADERS[entry.source](entry, folder, lambda _: None)
    module = resized.module.eval().requires_grad_(False)
    if resized.image_size != size:
        raise ModelError(
            f"model {entry.id}: takes images of {resized.image_size[0]} x {resized.image_size[1]} "
            f"pixels, not of {size[0]} x {size[1]}; set passes: tiled"
        )
    own = dict(backbone.module.named_parameters())
    for name, parameter in module.named_parameters():
        # Equal and not just alike: positions of a grid and of its transpose have one shape.
        if name in own and torch.equal(own[name].cpu(), parameter):
            parameter.data = own[name].data
    return replace(resized, module=module.to(next(iter(own.values()), torch.empty(0)).device))


def _load_demo(entry: ModelEntry, folder: Path, log: Log) -> Backbone:
    from vitfeat.demo import network

    model = network.load(entry.name, entry.input_size)
    return from_timm(entry, model, mean=network.MEAN, std=network.STD, interpolation="bicubic")


def _load_noise(entry: ModelEntry, folder: Path, log: Log) -> Backbone:
    from vitfeat.models.noise import noise_backbone

    return noise_backbone(entry)


def _load_checkpoint(entry: ModelEntry, folder: Path, log: Log) -> Backbone:
    """Load a file into an architecture of whichever library knows it."""
    import timm

    if timm.is_model(entry.name.split(".")[0]):
        return _load_timm(entry, folder, log)
    import open_clip

    if entry.name in open_clip.list_models():
        return _load_open_clip(entry, folder, log)
    raise ModelError(
        f"model {entry.id}: neither timm nor open_clip knows an architecture {entry.name!r}"
        f"{nearest(entry.name, [*timm.list_models(), *open_clip.list_models()])}"
    )


def _load_timm(entry: ModelEntry, folder: Path, log: Log) -> Backbone:
    import timm
    from timm.data import resolve_model_data_config

    architecture = entry.name.split(".")[0]
    if not timm.is_model(architecture):
        raise ModelError(
            f"model {entry.id}: timm knows no architecture {architecture!r}"
            f"{nearest(architecture, timm.list_models())}"
        )
    weights = _weights(entry, folder, log)
    published = _open(entry, weights) if weights else None
    if published:
        entry = _told_by(published, entry, architecture)
    arguments = {"num_classes": 0, **entry.args}
    if entry.input_size is not None:
        arguments["img_size"] = entry.input_size
    with noted_filters() as filters:
        model = _build(entry, lambda: timm.create_model(entry.name, pretrained=False, **arguments))
    if weights and published:
        with _about(entry, weights):
            fill_timm(entry, model, published, filters[-1] if filters else None, log)
    data = resolve_model_data_config(model)
    backbone = from_timm(
        entry, model, mean=data["mean"], std=data["std"], interpolation=data["interpolation"]
    )
    return _checked(backbone, published, weights)


def _load_open_clip(entry: ModelEntry, folder: Path, log: Log) -> Backbone:
    import open_clip

    if entry.name not in open_clip.list_models():
        raise ModelError(
            f"model {entry.id}: open_clip knows no architecture {entry.name!r}"
            f"{nearest(entry.name, open_clip.list_models())}"
        )
    weights = _weights(entry, folder, log)
    published = _open(entry, weights) if weights else None
    arguments = dict(entry.args)
    if entry.input_size is not None:
        arguments["force_image_size"] = entry.input_size
    if isinstance(entry.pretrained, str):
        tag = open_clip.get_pretrained_cfg(entry.name, entry.pretrained) or {}
        arguments["force_quick_gelu"] = bool(tag.get("quick_gelu"))
        if "quickgelu" in entry.name and not tag.get("quick_gelu"):
            raise ModelError(
                f"model {entry.id}: the weights {entry.pretrained} have no QuickGELU, which "
                f"{entry.name} has; take the architecture {entry.name.replace('-quickgelu', '')}"
            )
        # How images are prepared belongs to the weights: SigLIP's differ from CLIP's.
        prepared = {k: tag[k] for k in ("mean", "std", "interpolation") if k in tag}
        arguments["force_preprocess_cfg"] = prepared
    with _without_warnings(), noted_filters() as filters:
        model = _build(
            entry,
            # Without a tag it would fetch other weights for some text towers.
            lambda: open_clip.create_model(
                entry.name, pretrained=None, pretrained_text=False, **arguments
            ),
        )
    visual = model.visual
    if weights and published:
        with _about(entry, weights):
            if hasattr(visual, "trunk"):
                fill_timm(entry, visual.trunk, published, filters[-1] if filters else None, log)
            else:
                fill_open_clip(entry, visual, published, log)
    return _checked(from_open_clip(entry, visual), published, weights)


_LOADERS: dict[str, Callable[[ModelEntry, Path, Log], Backbone]] = {
    "timm": _load_timm,
    "open_clip": _load_open_clip,
    "checkpoint": _load_checkpoint,
    "demo": _load_demo,
    "noise": _load_noise,
}


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence open_clip's warning that weights are random: they are replaced, or meant to be."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _build(entry: ModelEntry, create: Callable[[], Any]) -> Any:
    """Call a library's constructor under the entry's seed, turning its failures into one line."""
    try:
        # The seed decides an untrained network's weights; the caller's generator stays as it was.
        with torch.random.fork_rng():
            torch.manual_seed(entry.seed)
            return create()
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ModelError(f"model {entry.id}: {entry.name} could not be built: {reason}") from error


def _weights(entry: ModelEntry, folder: Path, log: Log) -> Weights | None:
    """Find the entry's weight file, fetching it if need be; None for an untrained network."""
    if entry.checkpoint:
        path = Path(entry.checkpoint)
        if not path.is_file():
            raise ModelError(
                f"model {entry.id}: no checkpoint file {path}; place the weights there or set "
                f"catalog.{entry.id}.checkpoint"
            )
        return Weights(path, {"file": path.name, "sha256": sha256_of(path)})
    if not entry.is_fetched:
        return None
    record = fetch(entry, folder, log=log)
    origin = {
        "file": record.file,
        "sha256": record.sha256,
        "repository": record.repository,
        "revision": record.revision,
        "url": record.url,
    }
    return Weights(record.path, {k: v for k, v in origin.items() if v is not None})


@contextmanager
def _about(entry: ModelEntry, weights: Weights) -> Iterator[None]:
    """Say which model and file an error is about."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"model {entry.id}: {weights.path} {error}") from error


def _open(entry: ModelEntry, weights: Weights) -> Published:
    """Read the file and find the network, refusing another family's."""
    try:
        content = read_weight_file(weights.path)
    except ModelError as error:
        raise ModelError(f"model {entry.id}: {error}") from error
    with _about(entry, weights):
        published = find_network(content, entry.checkpoint_key, entry.checkpoint_prefix)
        found = published.family
        family = entry.family.lower()
        if found and family in _TOLD_FAMILIES and family not in _MAY_BE.get(found, {found}):
            raise ModelError(
                f"holds a network of the family {found} (by its keys: {published.place or 'top'}), "
                f"not {entry.family}; correct the entry's family or file"
            )
    return published


def _told_by(published: Published, entry: ModelEntry, architecture: str) -> ModelEntry:
    """Add the architecture's arguments that the file's layout tells; what the entry says stays."""
    told: dict[str, Any] = {}
    if published.family == "moco" and published.heads is not None:
        told["num_heads"] = published.heads
    if published.family == "beit" and architecture.startswith("beit"):
        # One table for all blocks, and the final norm of the pretraining.
        told = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"}
    return replace(entry, args={**told, **entry.args})


def _checked(backbone: Backbone, published: Published | None, weights: Weights | None) -> Backbone:
    """Hold a loaded network to what no tensor's shape tells; record where its weights came from.

    The size of its input, the number of heads, and the activation of OpenAI's CLIP.
    """
    entry = backbone.entry
    if entry.input_size not in (None, backbone.image_size):
        raise ModelError(
            f"model {entry.id}: image_size {entry.image_size} was asked for, but {entry.name} with "
            f"these args takes {backbone.image_size[0]} x {backbone.image_size[1]} pixels"
        )
    if published is None or weights is None:
        return backbone
    told = published.heads
    if told is not None and told != backbone.heads:
        raise ModelError(
            f"model {entry.id}: {weights.path} is of a network with {told} attention heads, "
            f"{entry.name} has {backbone.heads}; set args: {{num_heads: {told}}}"
        )
    from_openai = published.is_openai or str(weights.origin.get("repository")).endswith(".openai")
    if from_openai and not _has_quick_gelu(backbone):
        raise ModelError(
            f"model {entry.id}: {weights.path} is OpenAI's CLIP, whose activation is QuickGELU; "
            f"{entry.name} has another: take the architecture with 'quickgelu' in its name"
        )
    return replace(backbone, weights=dict(weights.origin))


def _has_quick_gelu(backbone: Backbone) -> bool:
    """Whether the blocks' activation is x sigmoid(1.702 x) (open_clip and timm call it alike)."""
    modules = (m for block in backbone.blocks for m in block.modules())
    return any("quickgelu" in type(m).__name__.lower() for m in modules)
