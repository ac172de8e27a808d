"""What the project must know of a model before it loads it: the catalogue's entries.

Nothing here imports torch: the workflow reads entries while it plans hundreds of jobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")

SOURCES = ("timm", "open_clip", "demo")

# Settings that would be passed over in silence: what a library's models cannot be told.
_UNUSED = {
    "open_clip": ("args", "checkpoint_key", "checkpoint_prefix"),
    "demo": (
        "args",
        "pretrained",
        "checkpoint",
        "checkpoint_key",
        "checkpoint_prefix",
        "seed",
        "image_size",
    ),
}

# Published normalisations by name: mean and standard deviation of RGB in 0..1.
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class ModelEntry:
    """One model: where it comes from and how it is shown.

    Attributes
    ----------
    id
        Name in the config and in file names.
    source
        Which library builds it: one of :data:`SOURCES`.
    name
        The library's own name of the architecture (timm, open_clip) or of the demo model.
    family
        Supervision: it gives the colour in every figure.
    label
        Name in figures.
    pretrained
        timm: ``True`` for the library's published weights, ``False`` for an untrained network.
        open_clip: the tag of the published weights, or ``False``.
    checkpoint
        Path of a local weight file; excludes ``pretrained``.
    checkpoint_key
        Entry of the file that holds the state dict, for files that hold more than one thing.
    checkpoint_prefix
        Keys that start so belong to the backbone; the prefix is removed and other keys dropped.
    args
        Further keyword arguments of the architecture (timm only).
    seed
        Seed of an untrained network's weights.
    image_size
        Side of the square input in pixels; the model's own if not given.
    normalisation
        A name in :data:`NORMALISATIONS`, or ``{"mean": [...], "std": [...]}``; the model's own if
        not given.
    crop_fraction
        Share of the resized short side that the centre crop keeps (0.875: 256 to 224).
    """

    id: str
    source: str
    name: str
    family: str = "other"
    label: str = ""
    pretrained: bool | str = False
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    checkpoint_prefix: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    image_size: int | None = None
    normalisation: str | Mapping[str, Any] | None = None
    crop_fraction: float = 0.875

    @classmethod
    def from_mapping(cls, model_id: str, mapping: Mapping[str, Any]) -> ModelEntry:
        """Build an entry from the catalogue's or the config's fields.

        Raises
        ------
        ConfigError
            For an unknown field, a missing one, or fields that exclude each other.
        """
        known = {f.name for f in fields(cls)} - {"id"}
        where = f"catalog.{model_id}"
        for key in mapping:
            if key not in known:
                raise ConfigError(
                    f"{where}: unknown key {key!r}{nearest(key, known)}; "
                    f"allowed: {', '.join(sorted(known))}"
                )
        if mapping.get("source") not in SOURCES:
            found = mapping.get("source")
            raise ConfigError(
                f"{where}.source: found {found!r}{nearest(str(found), SOURCES)}; "
                f"allowed: {', '.join(SOURCES)}"
            )
        for key in _UNUSED.get(mapping["source"], ()):
            if mapping.get(key):
                raise ConfigError(
                    f"{where}.{key}: models of the source {mapping['source']} do not take it; "
                    "remove the key"
                )
        if "name" not in mapping:
            raise ConfigError(f"{where}: the key 'name' (the architecture's name) is missing")
        entry = cls(id=model_id, **{**mapping, "label": mapping.get("label") or model_id})
        if entry.pretrained and entry.checkpoint:
            raise ConfigError(
                f"{where}: both 'pretrained' and 'checkpoint' are given; keep one of them"
            )
        entry.normalisation_values()
        return entry

    def to_mapping(self) -> dict[str, Any]:
        """Return the entry as JSON-able fields, ``id`` included."""
        return asdict(self)

    def normalisation_values(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return (mean, std) of RGB in 0..1, or None where the model's own are meant."""
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
        mean, std = given.get("mean", ()), given.get("std", ())
        if not (_is_rgb(mean) and _is_rgb(std) and all(s > 0 for s in std)):
            raise ConfigError(
                f"catalog.{self.id}.normalisation: found {self.normalisation!r}; "
                "mean and std must be three numbers each, std above 0"
            )
        return tuple(mean), tuple(std)


def _is_rgb(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(v, int | float) for v in value)
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
    """Return the entry of a model; user entries come before the catalogue's.

    Raises
    ------
    ConfigError
        When nobody knows the id; names the nearest one.
    """
    entries = {**builtin_catalog(), **(user_catalog or {})}
    if model_id not in entries:
        raise ConfigError(
            f"models: unknown model {model_id!r}{nearest(model_id, entries)}; "
            "`vitfeat models` lists the catalogue, and the config's `catalog:` takes your own"
        )
    return entries[model_id]
