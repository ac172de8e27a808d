"""What a weight file and an entry's family tell of a network that no tensor's shape does.

Arguments of the architecture (attention heads, tables of relative positions, where the final norm
stands), and how images are normalised. What the entry itself says stays.
"""

from __future__ import annotations

from typing import Any

from vitfeat.errors import ModelError
from vitfeat.models.entry import NORMALISATIONS, ModelEntry
from vitfeat.models.families import FAMILIES
from vitfeat.models.hub import timm_tag
from vitfeat.models.layouts import Published

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

# What keys tell beside the network (copies, heads, decoders), and of the network itself: files of
# these were trained on images normalised as the family's. Tables of BEiT, CLIP's keys and fixed
# positions are shared by models that were not.
_TOLD_BESIDE = {"dino", "moco", "mae", "dinov2", "dinov3", "ijepa"}
_TOLD_INSIDE = {"ibot", "beitv2", "dinov2", "dinov2-reg", "dinov3", "eva02"}


def told_arguments(
    published: Published, entry: ModelEntry, architecture: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of timm's architecture that file and family tell, and lines on them."""
    told, notes = _told_heads(published, entry)
    norm, fc_norm = (
        any(name in published.state for name in names)
        for names in (
            ("norm.weight", "layernorm.weight"),
            ("fc_norm.weight", "pooler.layernorm.weight"),
        )
    )
    if architecture.startswith("beit"):
        if published.family == "beit":
            # One table for all blocks.
            told |= {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
        if norm and not fc_norm:
            told["global_pool"] = "token"
    elif architecture.startswith(("vit_", "deit_")) and fc_norm and not norm:
        # Fine-tuned on the mean of the tokens, as MAE's code does.
        told |= {"global_pool": "avg", "fc_norm": True}
    return told, notes


def _told_heads(published: Published, entry: ModelEntry) -> tuple[dict[str, Any], list[str]]:
    """Return the attention heads that the file tells, or the family, or whose code it is."""
    given = entry.args.get("num_heads")
    if published.heads is not None:
        return ({"num_heads": published.heads}, []) if published.family == "moco" else ({}, [])
    for family in (entry.family_key, published.code):
        heads = FAMILIES[family].heads.get(published.width) if family else None
        if heads is None or given == heads:
            continue
        if given is not None:
            return {}, [
                f"{given} attention heads, as args say; published ones of {family}: {heads}"
            ]
        why = "its family" if family == entry.family_key else "its positions tell"
        return {"num_heads": heads}, [
            f"{heads} attention heads, as published ones of {family} ({why})"
        ]
    return {}, []


def _told_by_file(published: Published) -> dict[str, Normalisation]:
    """Return the normalisation that a weight file tells, by what of it does."""
    if published.is_openai:
        return {"the sizes in the file, which are OpenAI's": NORMALISATIONS["clip"]}
    if published.layout == "google":
        # -1 to 1 (Dosovitskiy et al. 2021, in its published code).
        return {"the file's keys, which are Google's": NORMALISATIONS["half"]}
    for family, telling in ((published.family, _TOLD_BESIDE), (published.code, _TOLD_INSIDE)):
        name = FAMILIES[family].normalisation if family in telling else None
        if name is not None:
            return {f"the file's keys, which are those of {family}": NORMALISATIONS[name]}
    return {}


def told_normalisation(
    entry: ModelEntry, published: Published, repository: str, default: Normalisation, of: str
) -> tuple[Normalisation, str]:
    """Return how images are normalised for weights that were read from a file, and who says so.

    The library's default for an architecture (`of`) may not fit them.
    """
    told = entry.told_normalisation()
    if "the entry" in told:
        return told["the entry"], "the entry"
    if entry.pretrained:
        tag = f" {entry.pretrained}" if isinstance(entry.pretrained, str) else ""
        return default, f"{of}{tag}, whose weights these are"
    # timm's repositories are called by its names and tags.
    owner, _, name = repository.partition("/")
    if owner == "timm" and (tag := timm_tag(name)):
        return (tag.mean, tag.std), f"timm's {name}, whose weights these are"
    told |= _told_by_file(published)
    if "." in entry.name:
        told[of] = default
    remedy = (
        f"set catalog.{entry.id}.normalisation to what the weights were trained with: "
        f"{', '.join(NORMALISATIONS)}, or mean and std"
    )
    if len(set(told.values())) > 1:
        said = "; ".join(f"{_shown(*values)} by {who}" for who, values in told.items())
        raise ModelError(f"model {entry.id}: several normalisations are told ({said}); {remedy}")
    for who, values in told.items():
        return values, who
    raise ModelError(
        f"model {entry.id}: neither its entry nor its family ({entry.family!r}) nor its file tells "
        f"how images are normalised; {remedy} ({of} has {_shown(*default)})"
    )


def _shown(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Return a normalisation as people call it: by its name, or its numbers."""
    for name, values in NORMALISATIONS.items():
        if values == (tuple(mean), tuple(std)):
            return name
    return f"mean {', '.join(map(str, mean))} and std {', '.join(map(str, std))}"
