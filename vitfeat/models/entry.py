"""What the project must know of a model before it loads it: the catalogue's entries.

Nothing here imports torch: the workflow reads entries while it plans hundreds of jobs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from vitfeat.errors import ConfigError
from vitfeat.models.families import FAMILIES, family_key
from vitfeat.settings.fields import Count, Fraction, Seed, Size, of_home, words
from vitfeat.settings.part import Part
from vitfeat.text import nearest
from vitfeat.weights.local import looks_like_file
from vitfeat.weights.records import WeightsSource

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")

# Arguments of the libraries' constructors that an entry says in its own fields, or that would
# bring in weights past the ones that are read, recorded and checked.
_NOT_ARGS = {
    "checkpoint_path", "features_only", "force_image_size", "img_size", "in_chans", "load_weights",
    "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_image",
    "pretrained_image_path", "pretrained_text", "pretrained_text_path",
}  # fmt: skip

# Settings that would be passed over in silence: what a source's models cannot be told.
_OF_FILES = ("checkpoint", "checkpoint_key", "checkpoint_prefix", "checkpoint_size", "positions")
_UNUSED = {
    "checkpoint": ("pretrained", "weights"),
    "demo": ("args", "pretrained", "weights", *_OF_FILES, "seed", "image_size"),
    "noise": ("pretrained", "weights", *_OF_FILES),
    "features": (
        *("args", "pretrained", "weights", *_OF_FILES, "seed", "image_size", "normalisation"),
    ),
}

# Families that timm's and open_clip's names of architectures tell.
_NAMED = {"dinov2": "dinov2", "eva02": "eva02", "deit3": "deit3", "siglip": "siglip"}

# Published normalisations by name: mean and standard deviation of RGB in 0..1.
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


_Text: TypeAlias = Annotated[str, StringConstraints(min_length=1)]


class ModelEntry(Part):
    """One model: where it comes from and how it is shown.

    Its `id` is its name in the config and in file names. docs/models.md says more.
    """

    id: SkipJsonSchema[str]
    source: Literal["timm", "open_clip", "checkpoint", "demo", "noise", "features"] = Field(
        description="Library that builds the model; checkpoint is a weight file of your own, noise "
        "the baseline without a network, features vectors that were made elsewhere."
    )
    name: _Text = Field(
        description="The library's name of the architecture; of features, what made them.",
        examples=["vit_base_patch16_224"],
    )
    family: str = Field("other", description="Supervision; it gives the colour in figures.")
    label: str = Field("", description="Name in figures; the id if empty.")
    pretrained: bool | str = Field(
        False, description="timm: true or false; open_clip: tag of the weights or false."
    )
    weights: _Text | Mapping[str, Any] | None = Field(
        None,
        description="Where published weights are: a hub repository (owner/name or "
        "owner/name@revision), a URL, or a mapping with repository or url, file, revision, sha256.",
    )
    checkpoint: Annotated[_Text, AfterValidator(lambda path: str(of_home(path)))] | None = Field(
        None, description="Path of a local weight file."
    )
    checkpoint_key: str | None = Field(
        None,
        description="Entry of the weight file that holds the state dict; found from its keys if "
        "not given.",
    )
    checkpoint_prefix: str | None = Field(
        None,
        description="Prefix of the backbone's keys in the file; found from its keys if not given.",
    )
    checkpoint_size: Annotated[Size, words("[height, width]")] | None = Field(
        None,
        description="Height and width of the images that the weights were trained on, if they were "
        "not square.",
    )
    args: Mapping[str, Any] = Field({}, description="Further arguments of the architecture.")
    seed: Seed = Field(0, description="Seed of an untrained network, or of noise.")
    image_size: Annotated[Count | Size | None, words("a side in pixels, or [height, width]")] = (
        Field(None, description="Size of the input; the model's own if not given.")
    )
    positions: Literal["timm", "dino", "mae", "moco", "google", "beit"] | None = Field(
        None,
        description="How position embeddings are fitted to another size; the family's own way if "
        "not given.",
    )
    normalisation: Annotated[
        str | Mapping[str, Any] | None,
        words("imagenet, clip, half, or {mean: [R, G, B], std: [R, G, B]}"),
    ] = Field(
        None,
        description="How images were normalised in training: imagenet, clip, half, or mean and "
        "std. Needed with weights of which neither file nor family tells it.",
    )
    crop_fraction: Fraction = Field(
        0.875, description="Share of the resized short side that the centre crop keeps."
    )
    features: Annotated[_Text, AfterValidator(lambda path: str(of_home(path)))] | None = Field(
        None,
        description="File or folder of features, {dataset} in its path for the dataset's name "
        "(docs/data.md); of the source features.",
    )

    @classmethod
    def from_mapping(cls, model_id: str, mapping: Mapping[str, Any]) -> Self:
        """Make an entry of fields as the catalogue has them."""
        return cls.checked(f"catalog.{model_id}.", mapping, id=model_id)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "label": values.get("label") or values["id"]}

    @model_validator(mode="after")
    def _of_its_source(self) -> Self:
        # The first fault alone: others may follow from it.
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        """Yield what of its values does not go together."""
        for key in _UNUSED.get(self.source, ()):
            if getattr(self, key):
                yield f"{key}: models of the source {self.source} do not take it; remove the key"
        tag = self.pretrained
        if isinstance(tag, str) and looks_like_file(tag):
            yield (
                f"pretrained: found {tag!r}; a weight file of your own is named by 'checkpoint': "
                f"{tag}"
            )
        if self.source == "timm" and isinstance(tag, str):
            yield (
                f"pretrained: found {tag!r}; for timm it is true or false, and the tag is part of "
                f"the name: {self.name.split('.')[0]}.{tag}"
            )
        if self.source == "open_clip" and tag is True:
            needed = "for open_clip it is the tag of the weights, such as openai"
            yield f"pretrained: found True; {needed}"
        if taken := sorted(_NOT_ARGS & set(self.args)):
            yield (
                f"args: {taken[0]!r} may not stand here; sizes and weights are fields of the "
                "entry (image_size, weights, checkpoint)"
            )
        given = [k for k in ("pretrained", "weights", "checkpoint") if getattr(self, k)]
        if len(given) > 1:
            yield f": both {given[0]!r} and {given[1]!r} are given; keep one of them"
        # open_clip's embed_dim is that of its projection.
        tells_heads = "embed_dim" not in self.args or {"num_heads", "vision_cfg"} & set(self.args)
        if given and not tells_heads:
            yield (
                "args: 'embed_dim' needs 'num_heads' beside it: no tensor of a weight file tells "
                "how many heads there are"
            )
        if self.source == "checkpoint" and not self.checkpoint:
            yield ": the source checkpoint needs the key 'checkpoint', the weight file"
        if self.source == "features" and not self.features:
            yield ": the source features needs the key 'features', the file that holds them"
        if self.features and self.source != "features":
            yield f"features: models of the source {self.source} do not take it; remove the key"
        try:
            if self.weights is not None:
                WeightsSource.from_config(self.weights, "weights")
            self.normalisation_values()
        except ConfigError as error:
            yield str(error)

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

    @property
    def is_imported(self) -> bool:
        """Whether its features are from elsewhere, so that no image is pushed through it."""
        return self.source == "features"

    def features_of(self, dataset: str) -> Path:
        """Return the file of its features of a dataset."""
        return Path(str(self.features).replace("{dataset}", dataset))

    def to_mapping(self) -> dict[str, Any]:
        """Return the entry as JSON-able fields, ``id`` included."""
        return self.model_dump(mode="json")

    def normalisation_values(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return (mean, std) of RGB in 0..1, or None where the entry does not say."""
        if self.normalisation is None:
            return None
        if isinstance(self.normalisation, str):
            if self.normalisation not in NORMALISATIONS:
                raise ConfigError(
                    f"normalisation: found {self.normalisation!r}"
                    f"{nearest(self.normalisation, NORMALISATIONS)}; allowed: "
                    f"{', '.join(NORMALISATIONS)} or a mapping with mean and std"
                )
            return NORMALISATIONS[self.normalisation]
        given: Any = self.normalisation if isinstance(self.normalisation, Mapping) else {}
        where = "normalisation"
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


def named(field: str) -> BeforeValidator:
    """Return what gives each of several settings its name."""
    return BeforeValidator(lambda all_: {k: {**v, field: k} for k, v in all_.items()})


Catalog: TypeAlias = Annotated[
    Mapping[str, ModelEntry],
    named("id"),
    Field(
        json_schema_extra={
            "propertyNames": {
                # Ids become wildcards and file names; "--" separates the two models of a pair.
                "pattern": r"^(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]*\Z",
                "allowed": "letters, digits, '.', '_' and '-' (no '--'), of which the first is a "
                "letter or digit",
            }
        }
    ),
]
"""Entries by id."""


class _WithCatalog(Part):
    catalog: Catalog


@cache
def builtin_catalog() -> Mapping[str, ModelEntry]:
    """Return the catalogue that ships with vitfeat, by id."""
    return read_catalog(yaml.safe_load(CATALOG_PATH.read_text("utf-8")))


def read_catalog(mapping: Mapping[str, Any]) -> Mapping[str, ModelEntry]:
    """Turn ``{id: fields}`` into entries, checking every id and field."""
    # YAML reads an id of digits as a number.
    by_id = {str(model_id): fields for model_id, fields in mapping.items()}
    return _WithCatalog.checked("", {"catalog": by_id}).catalog


def find_entry(model_id: str, user_catalog: Mapping[str, ModelEntry] | None = None) -> ModelEntry:
    """Return the entry of a model; user entries come before the catalogue's."""
    entries = {**builtin_catalog(), **(user_catalog or {})}
    if model_id not in entries:
        raise ConfigError(
            f"models: unknown model {model_id!r}{nearest(model_id, entries)}; "
            "`vitfeat models` lists the catalogue, and the config's `catalog:` takes your own"
        )
    return entries[model_id]
