"""What can be known of a model before any job runs: without its weights, a network, or torch.

The libraries' own files say what they know (:mod:`vitfeat.models.library_names`). Where these do
not say that an entry is right, the library itself is asked, and what it says is the error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vitfeat.errors import ConfigError, VitfeatError
from vitfeat.models import library_names
from vitfeat.models.entry import NORMALISATIONS, ModelEntry, uneven
from vitfeat.models.families import family_within
from vitfeat.text import nearest
from vitfeat.weights.local import fault_of

# Names of the models of vitfeat's own sources.
_OWN_NAMES = {
    "demo": ("supervised", "clip", "dino", "moco", "mae", "beit", "random"),
    "noise": ("small", "base", "large"),
}


def check_entry(entry: ModelEntry) -> list[str]:
    """Check a model as far as it can be known while jobs are planned.

    What only its weight file can still tell is returned, a line each for people.
    """
    if entry.is_imported:
        return []
    if entry.checkpoint and (fault := fault_of(Path(entry.checkpoint))):
        raise ConfigError(f"catalog.{entry.id}.checkpoint: {fault}")
    _check_sizes(entry)
    if (names := _OWN_NAMES.get(entry.source)) is None:
        _check_architecture(entry)
    elif entry.name not in names:
        raise ConfigError(
            f"catalog.{entry.id}.name: found {entry.name!r}{nearest(entry.name, names)}; allowed: "
            f"{', '.join(names)}"
        )
    _check_image_size(entry)
    if not (entry.checkpoint or entry.is_fetched):
        return []
    notes = []
    near = family_within(entry.family)
    if entry.family_key is None and near is not None:
        notes.append(
            f"model {entry.id}: the family {entry.family!r} is none that vitfeat knows; heads, "
            f"normalisation and positions as of {near} are taken with family: {near} alone"
        )
    told_by_timm = (
        entry.pretrained
        or str(entry.weights).startswith("timm/")
        or (entry.source != "open_clip" and "." in entry.name)
    )
    if not told_by_timm and not entry.told_normalisation():
        notes.append(
            f"model {entry.id}: neither its entry nor its family ({entry.family!r}) tells how "
            "images are normalised; unless its weight file does, its extraction will ask for "
            f"catalog.{entry.id}.normalisation ({', '.join(NORMALISATIONS)}, or mean and std)"
        )
    return notes


def _check_architecture(entry: ModelEntry) -> None:
    """Refuse names, tags and arguments that the library does not know, and what is no plain ViT."""
    architecture, _, tag = entry.name.partition(".")
    module = library_names.timm_modules().get(architecture)
    if entry.source == "open_clip" or (
        module is None and entry.name in library_names.open_clip_configs()
    ):
        _check_open_clip(entry)
        return
    if module is None:
        _ask_library(entry)
        return
    _refuse_module(entry, architecture, module)
    tags = library_names.timm_tags(architecture)
    if entry.pretrained:
        known = tags.get(tag, False) if tag else any(tags.values())
    else:
        known = not tag or tag in tags
    taken = library_names.timm_arguments(architecture) if entry.args else None
    if not known or (taken is not None and not set(entry.args) <= taken):
        _ask_library(entry, taken)


def _check_open_clip(entry: ModelEntry) -> None:
    if entry.name in library_names.open_clip_configs():
        vision = library_names.open_clip_vision(entry.name)
        if isinstance(vision.get("layers"), list):
            raise ConfigError(
                f"model {entry.id}: the image tower of {entry.name} is a ResNet and no plain ViT "
                "(docs/architectures.md)"
            )
        if trunk := vision.get("timm_model_name"):
            _refuse_module(entry, trunk, library_names.timm_modules().get(trunk, ""))
        tags = library_names.open_clip_tags().get(entry.name, frozenset())
        if not entry.pretrained or entry.pretrained in tags:
            return
    _ask_library(entry)


def _refuse_module(entry: ModelEntry, architecture: str, module: str) -> None:
    if module in library_names.NO_PLAIN_VITS:
        raise ConfigError(
            f"model {entry.id}: {architecture} (timm's {module}) is no plain ViT, which is one "
            "stack of blocks with attention over the same tokens (docs/architectures.md)"
        )


def _ask_library(entry: ModelEntry, arguments: frozenset[str] | None = None) -> None:
    """Let the library say what is wrong, if anything is; it takes seconds to import."""
    from vitfeat.models.hub import source_of
    from vitfeat.models.loading import try_to_build

    try:
        try_to_build(entry)
        if entry.pretrained:
            source_of(entry)
    except VitfeatError as error:
        unknown = sorted(set(entry.args) - arguments) if arguments else []
        if unknown:
            raise ConfigError(
                f"catalog.{entry.id}.args: {entry.name} takes no argument {unknown[0]!r}"
                f"{nearest(unknown[0], arguments or ())}"
            ) from error
        raise ConfigError(str(error)) from error


def _check_sizes(entry: ModelEntry) -> None:
    """Refuse sizes among the arguments that no network has."""
    for key in ("depth", "embed_dim", "num_heads"):
        value = entry.args.get(key, 1)
        if entry.source != "open_clip" and (type(value) is not int or value < 1):
            raise ConfigError(
                f"catalog.{entry.id}.args.{key}: found {value!r}; a whole number above 0 is needed"
            )
    width, heads = entry.args.get("embed_dim"), entry.args.get("num_heads")
    if type(width) is int and type(heads) is int and width % heads:
        raise ConfigError(
            f"catalog.{entry.id}.args: embed_dim {width} cannot be split among {heads} heads; make "
            "num_heads a divisor of it"
        )


def _check_image_size(entry: ModelEntry) -> None:
    """Refuse a size that patches do not fill, where names or arguments tell the patch."""
    size, patch = entry.input_size, _patch(entry)
    if size is None or patch is None or entry.args.get("dynamic_img_pad"):
        return
    if any(side % p for side, p in zip(size, patch, strict=True)) and size != _own_size(entry):
        raise ConfigError(f"model {entry.id}: {uneven(size, patch)}")


def _patch(entry: ModelEntry) -> tuple[int, int] | None:
    told: Any = entry.args.get("patch_size")
    if type(told) is int and told > 0:
        return told, told
    if isinstance(told, list | tuple) and len(told) == 2 and all(type(s) is int for s in told):
        return (told[0], told[1]) if min(told) > 0 else None
    if told is not None:
        return None
    if entry.source == "noise":
        return 16, 16
    name = entry.name
    if name in library_names.open_clip_configs() and "vision_cfg" not in entry.args:
        vision = library_names.open_clip_vision(name)
        name = vision.get("timm_model_name") or f"patch{vision.get('patch_size') or ''}"
    found = re.search(r"patch(\d+)", name)
    return (int(found[1]), int(found[1])) if found else None


def _own_size(entry: ModelEntry) -> tuple[int, int] | None:
    """Return the size that a name tells: some models were published with pixels left over."""
    if entry.name in library_names.open_clip_configs():
        side = library_names.open_clip_vision(entry.name).get("image_size")
        return (side, side) if isinstance(side, int) else None
    found = re.search(r"_(\d{3})(?:$|\.)", entry.name)
    return (int(found[1]), int(found[1])) if found else None
