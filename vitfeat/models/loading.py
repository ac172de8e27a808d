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
from vitfeat.models.entry import ModelEntry, find_entry, uneven
from vitfeat.models.families import contradict
from vitfeat.models.fitting import fill_open_clip, fill_timm, noted_filters, refuse_unfit
from vitfeat.models.hub import fetch, timm_tag
from vitfeat.models.layouts import Published, find_network
from vitfeat.models.noise import noise_backbone
from vitfeat.models.structure import from_open_clip, from_timm
from vitfeat.models.told import Normalisation, told_arguments, told_normalisation
from vitfeat.text import nearest
from vitfeat.weights.local import fault_of
from vitfeat.weights.weightfile import read_weight_file

Note = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """A weight file, and of where it comes from what :attr:`Backbone.weights` says."""

    path: Path
    origin: Mapping[str, Any]


def load_backbone(entry: ModelEntry | str, *, folder: Path = Path("weights")) -> Backbone:
    """Load a model on the CPU, in evaluation mode, without gradients.

    `folder` has the records of fetched weights (:mod:`vitfeat.weights.fetch`); published weights
    that are not on this machine are fetched. What the weight file held, what was left out, renamed
    and resized stands in the backbone's notes.
    """
    if isinstance(entry, str):
        entry = find_entry(entry)
    notes: list[str] = []
    backbone = _load(entry, folder, notes.append)
    backbone.module.eval().requires_grad_(False)
    return replace(backbone, notes=notes, at_size=partial(_at_size, backbone, folder))


def _at_size(backbone: Backbone, folder: Path, size: tuple[int, int]) -> Backbone:
    """Load the entry anew for another input size, and share what does not depend on it."""
    entry = backbone.entry.model_copy(update={"image_size": size})
    # What there is to say was said before.
    resized = _load(entry, folder, lambda _: None)
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


def _load(entry: ModelEntry, folder: Path, note: Note) -> Backbone:
    if entry.source == "noise":
        return noise_backbone(entry)
    if entry.source == "demo":
        from vitfeat.demo.network import MEAN, STD, load

        model = load(entry.name, entry.input_size)
        backbone = from_timm(entry, model, mean=MEAN, std=STD, interpolation="bicubic")
        return _normalised(backbone, (MEAN, STD), "how the demo models were trained")
    library = _library_of(entry)
    weights = _weights(entry, folder)
    published = _open(entry, weights) if weights else None
    load_into = _load_timm if library == "timm" else _load_open_clip
    return _checked(*load_into(entry, weights, published, note), published, weights)


def _library_of(entry: ModelEntry) -> str:
    """Return the library that knows an entry's architecture: the entry's own, if it names one."""
    import timm

    architecture, _, tag = entry.name.partition(".")
    if entry.source != "open_clip" and timm.is_model(architecture):
        if tag and timm_tag(entry.name) is None:
            names = timm.list_models(f"{architecture}.*", pretrained=True)
            tags = [name.partition(".")[2] for name in names]
            raise ModelError(
                f"model {entry.id}: timm knows no tag {tag!r} of {architecture}"
                f"{nearest(tag, tags)}; known: {', '.join(tags) or 'none'}"
            )
        return "timm"
    if entry.source == "timm":
        raise ModelError(
            f"model {entry.id}: timm knows no architecture {architecture!r}"
            f"{nearest(architecture, timm.list_models())}"
        )
    import open_clip

    if entry.name in open_clip.list_models():
        return "open_clip"
    if entry.source == "open_clip":
        raise ModelError(
            f"model {entry.id}: open_clip knows no architecture {entry.name!r}"
            f"{nearest(entry.name, open_clip.list_models())}"
        )
    raise ModelError(
        f"model {entry.id}: neither timm nor open_clip knows an architecture {entry.name!r}"
        f"{nearest(entry.name, [*timm.list_models(), *open_clip.list_models()])}"
    )


def try_to_build(entry: ModelEntry) -> None:
    """Build the network that an entry names without any numbers in it, to see whether it can be."""
    # open_clip moves what it has built, which is empty here.
    if _library_of(entry) == "timm":
        with torch.device("meta"):
            _timm_model(entry)


def _timm_model(entry: ModelEntry) -> Any:
    import timm

    arguments = {"num_classes": 0, **entry.args}
    if entry.input_size is not None:
        arguments["img_size"] = entry.input_size
    return _build(entry, lambda: timm.create_model(entry.name, pretrained=False, **arguments))


def _load_timm(
    entry: ModelEntry, weights: Weights | None, published: Published | None, note: Note
) -> tuple[Backbone, str]:
    """Return a network of timm with its weights, and in words what its normalisation is of."""
    from timm.data import resolve_model_data_config

    if published:
        told, lines = told_arguments(published, entry, entry.name.split(".")[0])
        entry = entry.model_copy(update={"args": {**told, **entry.args}})
        for line in lines:
            note(f"{entry.id}: {line}")
    with noted_filters() as filters:
        model = _timm_model(entry)
    if weights and published:
        with _about(entry, weights):
            fill_timm(entry, model, published, filters[-1] if filters else None, note)
    data = resolve_model_data_config(model)
    backbone = from_timm(
        entry, model, mean=data["mean"], std=data["std"], interpolation=data["interpolation"]
    )
    return backbone, f"timm's {entry.name}"


def _load_open_clip(
    entry: ModelEntry, weights: Weights | None, published: Published | None, note: Note
) -> tuple[Backbone, str]:
    """Return an image tower of open_clip; as :func:`_load_timm`."""
    import open_clip

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
                fill_timm(entry, visual.trunk, published, filters[-1] if filters else None, note)
            else:
                fill_open_clip(entry, visual, published, note)
    return from_open_clip(entry, visual), f"open_clip's {entry.name}"


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


def _weights(entry: ModelEntry, folder: Path) -> Weights | None:
    """Find the entry's weight file, fetching it if need be; None for an untrained network."""
    if entry.checkpoint:
        path = Path(entry.checkpoint)
        if fault := fault_of(path):
            raise ModelError(f"model {entry.id}: catalog.{entry.id}.checkpoint: {fault}")
        return Weights(path, {"file": path.name, "sha256": sha256_of(path)})
    if not entry.is_fetched:
        return None
    record = fetch(entry, folder)
    keys = ("file", "sha256", "repository", "revision", "url")
    origin = {key: getattr(record, key) for key in keys}
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
        refuse_unfit(published.state)
        found = published.family
        if found and contradict(found, entry.family_key):
            raise ModelError(
                f"holds a network of the family {found} (by its keys: {published.place or 'top'}), "
                f"not {entry.family}; correct the entry's family or file"
            )
    return published


def _checked(
    backbone: Backbone, of: str, published: Published | None, weights: Weights | None
) -> Backbone:
    """Hold a loaded network to what no tensor's shape tells; record where its weights came from.

    The size of its input, the number of heads, the activation and the layer norms of CLIP, and how
    images are normalised, for which the library has its own of the architecture (`of`).
    """
    entry = backbone.entry
    _check_whole_patches(backbone)
    if entry.input_size not in (None, backbone.image_size):
        raise ModelError(
            f"model {entry.id}: image_size {entry.image_size} was asked for, but {entry.name} with "
            f"these args takes {backbone.image_size[0]} x {backbone.image_size[1]} pixels"
        )
    default = (tuple(backbone.mean), tuple(backbone.std))
    if published is None or weights is None:
        return _normalised(backbone, default, f"{of}, which is untrained")
    told = published.heads
    if told is not None and told != backbone.heads:
        raise ModelError(
            f"model {entry.id}: {weights.path} is of a network with {told} attention heads, "
            f"{entry.name} has {backbone.heads}; set args: {{num_heads: {told}}}"
        )
    repository = str(weights.origin.get("repository"))
    from_openai = published.is_openai or repository.endswith(".openai")
    if from_openai and not _has_quick_gelu(backbone):
        raise ModelError(
            f"model {entry.id}: {weights.path} is OpenAI's CLIP, whose activation is QuickGELU; "
            f"{entry.name} has another: take the architecture with 'quickgelu' in its name"
        )
    if published.layout == "clip" and (found := _epsilons(backbone) - {_CLIPS_EPSILON}):
        raise ModelError(
            f"model {entry.id}: {weights.path} is CLIP's, whose layer norms have an epsilon of "
            f"{_CLIPS_EPSILON}; those of {entry.name} have {', '.join(map(str, sorted(found)))}: "
            "take an architecture with 'clip' in its name"
        )
    values, who = told_normalisation(entry, published, repository, default, of)
    return _normalised(replace(backbone, weights=dict(weights.origin)), values, who)


# Layer norms of every CLIP have PyTorch's own epsilon, where timm's ViTs have 1e-6.
_CLIPS_EPSILON = 1e-5


def _epsilons(backbone: Backbone) -> set[float]:
    return {m.eps for m in backbone.blocks[0].modules() if isinstance(m, torch.nn.LayerNorm)}


def _normalised(backbone: Backbone, values: Normalisation, who: str) -> Backbone:
    """Return a backbone whose images are normalised as its entry says, or else as somebody does."""
    own = backbone.entry.normalisation_values()
    mean, std = own or values
    return replace(backbone, mean=mean, std=std, normalised_by="the entry" if own else who)


def _check_whole_patches(backbone: Backbone) -> None:
    """Refuse an input that was asked for and whose last pixels no patch would see."""
    entry = backbone.entry
    if entry.input_size is None or entry.args.get("dynamic_img_pad"):
        return
    published = getattr(backbone.module, "pretrained_cfg", None) or {}
    if tuple(published.get("input_size", ())[1:]) == entry.input_size:
        # Some were published so: SigLIP of 384 pixels has patches of 14.
        return
    sides = zip(entry.input_size, backbone.patch_size, strict=True)
    if any(side % patch for side, patch in sides):
        raise ModelError(f"model {entry.id}: {uneven(entry.input_size, backbone.patch_size)}")


def _has_quick_gelu(backbone: Backbone) -> bool:
    """Whether the blocks' activation is x sigmoid(1.702 x) (open_clip and timm call it alike)."""
    modules = (m for block in backbone.blocks for m in block.modules())
    return any("quickgelu" in type(m).__name__.lower() for m in modules)
