"""What the project must know of a model before it loads it: the catalogue's entries.

Nothing here imports torch: the workflow reads entries while it plans hundreds of jobs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from vitfeat.errors import ConfigError
from vitfeat.models.families import FAMILIES, family_key
from vitfeat.text import nearest
from vitfeat.weights.local import looks_like_file
from vitfeat.weights.records import WeightsSource

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")

SOURCES = ("timm", "open_clip", "checkpoint", "demo", "noise")

#: Ways to fit position embeddings to another grid (vitfeat.models.positions).
POSITIONS = ("timm", "dino", "mae", "moco", "google", "beit")

# Arguments of the libraries' constructors that an entry says in its own fields, or that would
# bring in weights past the ones that are read, recorded and checked.
_NOT_ARGS = {
    "checkpoint_path", "features_only", "force_image_size", "img_size", "in_chans", "load_weights",
    "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_image",
    "pretrained_image_path", "pretrained_text", "pretrained_text_path",
}  # fmt: skip

# What each field may be; the config's schema says the same of configs.
_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "family": (str,),
    "label": (str,),
    "pretrained": (bool, str),
    "weights": (str, Mapping, NoneType),
    "checkpoint": (str, NoneType),
    "checkpoint_key": (str, NoneType),
    "checkpoint_prefix": (str, NoneType),
    "args": (Mapping,),
    "seed": (int,),
    "positions": (str, NoneType),
    "crop_fraction": (int, float),
}

# Settings that would be passed over in silence: what a source's models cannot be told.
_OF_FILES = ("checkpoint", "checkpoint_key", "checkpoint_prefix", "checkpoint_size", "positions")
_UNUSED = {
    "checkpoint": ("pretrained", "weights"),
    "demo": ("args", "pretrained", "weights", *_OF_FILES, "seed", "image_size"),
    "noise": ("pretrained", "weights", *_OF_FILES),
}

# Families that timm's and open_clip's names of architectures tell.
_NAMED = {"dinov2": "dinov2", "eva02": "eva02", "deit3": "deit3", "siglip": "siglip"}

# Published normalisations by name: mean and standard deviation of RGB in 0..1.
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class ModelEntry:
    """One model: where it comes from and how it is shown.

    Its `id` is its name in the config and in file names. :class:`vitfeat.config.model.Entry` says
    what each other field means, and docs/models.md more. ``pretrained``, ``weights`` and
    ``checkpoint`` exclude each other.
    """

    id: str
    source: str
    name: str
    family: str = "other"
    label: str = ""
    pretrained: bool | str = False
    weights: str | Mapping[str, Any] | None = None
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    checkpoint_prefix: str | None = None
    checkpoint_size: Sequence[int] | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    image_size: int | Sequence[int] | None = None
    positions: str | None = None
    normalisation: str | Mapping[str, Any] | None = None
    crop_fraction: float = 0.875

    @classmethod
    def from_mapping(cls, model_id: str, mapping: Mapping[str, Any]) -> ModelEntry:
        """Build an entry from the catalogue's or the config's fields."""
        where = f"catalog.{model_id}"
        for fault in _faults_of_keys(mapping, {f.name for f in fields(cls)} - {"id"}):
            raise ConfigError(f"{where}{fault}")
        values = {**mapping, "label": mapping.get("label") or model_id}
        if str(values.get("checkpoint")).startswith("~"):
            values["checkpoint"] = _of_home(values["checkpoint"], where)
        entry = cls(id=model_id, **values)
        for fault in entry._faults():
            raise ConfigError(f"{where}{fault}")
        if entry.weights is not None:
            WeightsSource.from_config(entry.weights, f"{where}.weights")
        entry.normalisation_values()
        return entry

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong with its values, the first fault first: others may follow from it."""
        for key, types in _TYPES.items():
            value = getattr(self, key)
            # A truth value is a number to Python, not to a reader of configs.
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                names = " or ".join(_WORDS[t] for t in types)
                yield f".{key}: found {value!r}; needed is {names}"
        if not 0 < self.crop_fraction <= 1:
            needed = "needed is a number above 0 and at most 1"
            yield f".crop_fraction: found {self.crop_fraction!r}; {needed}"
        if self.seed < 0:
            yield f".seed: found {self.seed!r}; needed is a number from 0"
        tag = self.pretrained
        if isinstance(tag, str) and looks_like_file(tag):
            yield (
                f".pretrained: found {tag!r}; a weight file of your own is named by 'checkpoint': "
                f"{tag}"
            )
        if self.source == "timm" and isinstance(tag, str):
            yield (
                f".pretrained: found {tag!r}; for timm it is true or false, and the tag is part of "
                f"the name: {self.name.split('.')[0]}.{tag}"
            )
        if self.source == "open_clip" and tag is True:
            needed = "for open_clip it is the tag of the weights, such as openai"
            yield f".pretrained: found True; {needed}"
        if taken := sorted(_NOT_ARGS & set(self.args)):
            yield (
                f".args: {taken[0]!r} may not stand here; sizes and weights are fields of the "
                "entry (image_size, weights, checkpoint)"
            )
        given = [k for k in ("pretrained", "weights", "checkpoint") if getattr(self, k)]
        if len(given) > 1:
            yield f": both {given[0]!r} and {given[1]!r} are given; keep one of them"
        # open_clip's embed_dim is that of its projection.
        tells_heads = "embed_dim" not in self.args or {"num_heads", "vision_cfg"} & set(self.args)
        if given and not tells_heads:
            yield (
                ".args: 'embed_dim' needs 'num_heads' beside it: no tensor of a weight file tells "
                "how many heads there are"
            )
        if self.source == "checkpoint" and not self.checkpoint:
            yield ": the source checkpoint needs the key 'checkpoint', the weight file"
        if self.positions is not None and self.positions not in POSITIONS:
            near = nearest(self.positions, POSITIONS)
            yield f".positions: found {self.positions!r}{near}; allowed: {', '.join(POSITIONS)}"
        for key in ("image_size", "checkpoint_size"):
            value = getattr(self, key)
            if value is not None and not _is_size(value, single=key == "image_size"):
                side = "a side in pixels, or " if key == "image_size" else ""
                yield f".{key}: found {value!r}; {side}[height, width] is needed"

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the input in pixels, or None where the model's own are meant."""
        if self.image_size is None:
            return None
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @property
    def resize_positions(self) -> str | None:
        """The way to fit position embeddings, as far as the entry, its family and its name tell."""
        name = self.name.lower()
        named = next((family for word, family in _NAMED.items() if word in name), None)
        ways = (FAMILIES[key].positions for key in (self.family_key, named) if key)
        return self.positions or next(filter(None, ways), None)

    @property
    def family_key(self) -> str | None:
        """Its family in :data:`vitfeat.models.families.FAMILIES`, if it is one of them."""
        key = family_key(self.family)
        # Figures may show both as one family; their images are normalised differently.
        return "beitv2" if key == "beit" and self.name.startswith("beitv2") else key

    def told_normalisation(self) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
        """Return how images are normalised, by what of the entry tells it: it alone, or its family.

        Empty where neither does.
        """
        own = self.normalisation_values()
        if own is not None:
            return {"the entry": own}
        name = FAMILIES[self.family_key].normalisation if self.family_key else None
        return {f"the family {self.family_key}": NORMALISATIONS[name]} if name else {}

    @property
    def is_fetched(self) -> bool:
        """Whether its weights are published somewhere and must be fetched."""
        return bool(self.pretrained or self.weights)

    def to_mapping(self) -> dict[str, Any]:
        """Return the entry as JSON-able fields, ``id`` included."""
        return asdict(self)

    def normalisation_values(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return (mean, std) of RGB in 0..1, or None where the entry does not say."""
        if self.normalisation is None:
            return None
        if isinstance(self.normalisation, str):
            if self.normalisation not in NORMALISATIONS:
                raise ConfigError(
                    f"catalog.{self.id}.normalisation: found {self.normalisation!r}"
                    f"{nearest(self.normalisation, NORMALISATIONS)}; allowed: "
                    f"{', '.join(NORMALISATIONS)} or a mapping with mean and std"
                )
            return NORMALISATIONS[self.normalisation]
        given: Any = self.normalisation if isinstance(self.normalisation, Mapping) else {}
        where = f"catalog.{self.id}.normalisation"
        for key in given:
            if key not in ("mean", "std"):
                raise ConfigError(
                    f"{where}: unknown key {key!r}{nearest(str(key), ('mean', 'std'))}; allowed: "
                    "mean, std"
                )
        mean, std = given.get("mean", ()), given.get("std", ())
        if not (_is_rgb(mean) and _is_rgb(std) and all(s > 0 for s in std)):
            raise ConfigError(
                f"{where}: found {self.normalisation!r}; mean and std must be three numbers each, "
                "std above 0"
            )
        if max(*mean, *std) > 1 or min(mean) < 0:
            raise ConfigError(
                f"{where}: found {self.normalisation!r}; mean and std are of pixels between 0 and "
                "1; divide those of pixels up to 255 by 255"
            )
        values = tuple(mean), tuple(std)
        for name, (red_first, spread) in NORMALISATIONS.items():
            if values == (red_first[::-1], spread[::-1]) != (red_first, spread):
                raise ConfigError(
                    f"{where}: found that of {name} in the order blue, green, red; images are "
                    f"red, green, blue here: write {name}, and turn the channels of the network's "
                    "patch embedding if it was trained on blue first"
                )
        return values


def _faults_of_keys(mapping: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the keys of an entry, the first fault first."""
    for key in mapping:
        if key not in known:
            allowed = ", ".join(sorted(known))
            yield f": unknown key {key!r}{nearest(key, known)}; allowed: {allowed}"
    source = mapping.get("source")
    if source not in SOURCES:
        allowed = ", ".join(SOURCES)
        yield f".source: found {source!r}{nearest(str(source), SOURCES)}; allowed: {allowed}"
    for key in filter(mapping.get, _UNUSED.get(str(source), ())):
        yield f".{key}: models of the source {source} do not take it; remove the key"
    if "name" not in mapping:
        yield ": the key 'name' (the architecture's name) is missing"
    for key in ("name", "checkpoint", "weights"):
        if mapping.get(key) == "":
            yield f".{key}: is empty; fill it in, or remove the key"


_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Mapping: "a mapping",
    NoneType: "nothing",
}


def _of_home(path: str, where: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        problem = f"found {path!r}: no folder of that user is known"
        raise ConfigError(f"{where}.checkpoint: {problem}") from error


def _is_size(value: Any, *, single: bool) -> bool:
    sides = [value] if single and isinstance(value, int) else value
    return (
        isinstance(sides, list | tuple)
        and len(sides) == (1 if sides is not value else 2)
        and all(type(side) is int and side > 0 for side in sides)
    )


def uneven(size: tuple[int, int], patch: tuple[int, int]) -> str:
    """Say that patches do not fill an image, and which sizes they do."""
    pairs = list(zip(size, patch, strict=True))
    low = [max(1, side // p) * p for side, p in pairs]
    high = [-(-side // p) * p for side, p in pairs]
    wanted = " or ".join(dict.fromkeys(map(_side, (low, high))))
    return (
        f"image_size {_side(size)} is no whole number of patches of {_side(patch)} pixels; take "
        f"{wanted}"
    )


def _side(sides: Sequence[int]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else f"[{sides[0]}, {sides[1]}]"


def _is_rgb(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        # A truth value is no number here, and NaN is not in any order.
        and all(type(v) in (int, float) and abs(v) < math.inf for v in value)
    )


@cache
def builtin_catalog() -> dict[str, ModelEntry]:
    """Return the catalogue that ships with vitfeat, by id."""
    return read_catalog(yaml.safe_load(CATALOG_PATH.read_text("utf-8")))


def read_catalog(mapping: Mapping[str, Mapping[str, Any]]) -> dict[str, ModelEntry]:
    """Turn ``{id: fields}`` into entries, checking every id and field."""
    for model_id in mapping:
        # Ids become wildcards and file names; "--" separates the two models of a pair.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(model_id)) or "--" in str(model_id):
            raise ConfigError(
                f"catalog.{model_id}: an id may hold letters, digits, '.', '_' and '-' "
                "(no '--', no slash) and starts with a letter or digit"
            )
    # YAML reads an id of digits as a number.
    return {str(i): ModelEntry.from_mapping(str(i), fields_) for i, fields_ in mapping.items()}


def find_entry(model_id: str, user_catalog: Mapping[str, ModelEntry] | None = None) -> ModelEntry:
    """Return the entry of a model; user entries come before the catalogue's."""
    entries = {**builtin_catalog(), **(user_catalog or {})}
    if model_id not in entries:
        raise ConfigError(
            f"models: unknown model {model_id!r}{nearest(model_id, entries)}; "
            "`vitfeat models` lists the catalogue, and the config's `catalog:` takes your own"
        )
    return entries[model_id]
