"""The settings of a dataset, and what is to be known of its layout before any file is read."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vitfeat.data.images import Orientation
from vitfeat.data.views import ViewSettings
from vitfeat.errors import ConfigError
from vitfeat.text import nearest


@dataclass(frozen=True)
class Layout:
    """What a layout takes and has; :mod:`vitfeat.data.layouts` reads its files.

    Attributes
    ----------
    split
        Whether it knows splits.
    settings
        Keys of a dataset that it alone takes.
    annotations
        The kind of what is annotated beside the images, a key of
        :data:`vitfeat.data.annotations.ROWS`, if anything is.
    files
        Patterns of the files that annotate, below the root; ``{split}`` stands for the split.
    view
        How its images usually become inputs.
    containers
        Endings of the files that hold its images, several each, if its images are no files.
    extra
        The extra of vitfeat that brings the library which reads them, if one is needed.
    """

    split: Literal["never", "optional", "always"] = "never"
    settings: tuple[str, ...] = ()
    annotations: str | None = None
    files: tuple[str, ...] = ()
    view: ViewSettings = field(default=ViewSettings())
    containers: tuple[str, ...] = ()
    extra: str | None = None


LAYOUTS: dict[str, Layout] = {
    "folder": Layout("optional"),
    "flat": Layout(),
    "list": Layout(settings=("list",)),
    "imagenet": Layout("always"),
    "imagenet50": Layout("optional"),
    # The embedded dataset is written as {train,test}/{class}/{index}.png.
    "digits": Layout("always"),
    "coco": Layout("always", annotations="regions", files=("annotations/instances_{split}.json",)),
    "partimagenet": Layout(
        "always",
        settings=("per_superclass",),
        annotations="regions",
        files=("*.json", "annotations/*/*.json"),
    ),
    "revisited": Layout(
        settings=("query_crop",),
        annotations="relevance",
        files=("gnd_*.pkl",),
        view=ViewSettings("dense", long_side=512, passes="one"),
    ),
    "davis": Layout(
        "always",
        annotations="frames",
        files=("ImageSets/2017/{split}.txt", "Annotations/480p/*/*.png"),
        view=ViewSettings("dense"),
    ),
    "spair": Layout(
        "always",
        annotations="points",
        files=("Layout/large/{split}.txt", "PairAnnotation/{split}/*.json"),
        view=ViewSettings("padded"),
    ),
    "webdataset": Layout(
        "optional", settings=("images", "labels", "ids"), containers=(".tar", ".zip")
    ),
    "parquet": Layout(
        "optional",
        settings=("images", "labels", "ids"),
        containers=(".parquet", ".arrow"),
        extra="parquet",
    ),
    "hdf5": Layout(
        "optional",
        settings=("images", "labels", "ids", "axes"),
        containers=(".h5", ".hdf5"),
        extra="hdf5",
    ),
    "video": Layout(
        "optional",
        settings=("labels", "rate"),
        containers=(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
        extra="video",
    ),
}
"""Every layout by the name that ``datasets.NAME.layout`` takes."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where a dataset lies and which of its images to use; docs/settings.md describes the keys."""

    name: str
    layout: str
    root: Path
    split: str | None = None
    list: Path | None = None
    per_class: int | None = None
    limit: int | None = None
    per_superclass: int | None = None
    query_crop: Literal["box", "whole"] = "box"
    images: str | None = None
    labels: str | None = None
    ids: str | None = None
    axes: Literal["HWC", "CHW"] | None = None
    rate: float | None = None
    view: ViewSettings | None = None
    orientation: Orientation = "stored"
    on_error: Literal["stop", "skip"] = "stop"
    min_side: int = 8
    max_megapixels: float = 80.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            guess = nearest(self.layout, LAYOUTS)
            raise self.error("layout", f"{self.layout!r} is not one of {', '.join(LAYOUTS)}{guess}")
        layout = LAYOUTS[self.layout]
        if self.split is not None and (
            not self.split or "/" in self.split or self.split.startswith(".")
        ):
            raise self.error("split", f"{self.split!r} is not the name of a first-level folder")
        if self.split is not None and layout.split == "never":
            raise self.error("split", f"the layout {self.layout} has no splits; remove it")
        if self.split is None and layout.split == "always":
            raise self.error("split", f"missing; the layout {self.layout} needs it")
        reads_list = "list" in layout.settings
        if self.list is not None and not reads_list:
            raise self.error("list", f"the layout {self.layout} reads no list; use layout: list")
        if self.list is None and reads_list:
            raise self.error("list", f"missing; the layout {self.layout} needs a list file")
        for key, words in _WORDS.items():
            if getattr(self, key) not in (*words, *_ABSENT.get(key, ())):
                raise self.error(key, f"{getattr(self, key)!r} is not one of {', '.join(words)}")
        others = ("per_superclass", "images", "labels", "ids", "axes", "rate")
        given = {key: getattr(self, key) is not None for key in others}
        given["query_crop"] = self.whole_query
        for key, is_given in given.items():
            if is_given and key not in layout.settings:
                raise self.error(key, f"the layout {self.layout} does not know it; remove it")
        for key in ("per_class", "per_superclass", "limit", "min_side"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise self.error(key, f"{value} is below 1")
        for key in ("max_megapixels", "rate"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise self.error(key, f"{value} is not a number above 0")

    @property
    def whole_query(self) -> bool:
        """Whether queries are used as whole images."""
        return self.query_crop == "whole"

    @property
    def containers(self) -> tuple[str, ...]:
        """Endings of the files that hold its images, if its images are no files."""
        return LAYOUTS[self.layout].containers

    @property
    def annotations(self) -> str | None:
        """The kind of what is annotated beside the images, if anything is."""
        return LAYOUTS[self.layout].annotations

    @property
    def usual_view(self) -> ViewSettings:
        """How its images become inputs, where a model says nothing else."""
        return self.view or LAYOUTS[self.layout].view

    def annotation_files(self) -> Sequence[Path]:
        """Return the files that annotate the images, as far as they are there, sorted."""
        split = glob.escape(self.split or "")
        patterns = (p.replace("{split}", split) for p in LAYOUTS[self.layout].files)
        return sorted(path for pattern in patterns for path in self.root.glob(pattern))

    def error(self, key: str, problem: str) -> ConfigError:
        """Make the error that blames one of the settings."""
        return ConfigError(f"datasets.{self.name}.{key}: {problem}")

    @classmethod
    def from_config(cls, name: str, mapping: Mapping[str, Any]) -> DatasetSpec:
        """Make the settings from one entry of the config's ``datasets``.

        Keys are the fields of this class; null is the same as absence. ``~`` in paths is expanded;
        relative paths stay relative to the working directory.
        """
        where = f"datasets.{name}"
        allowed = [f.name for f in fields(cls) if f.name != "name"]
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{where}: must be a mapping with the keys {', '.join(allowed)}")
        given = {key: value for key, value in mapping.items() if value is not None}
        for key, value in given.items():
            if key not in allowed:
                raise ConfigError(
                    f"{where}.{key}: unknown key{nearest(str(key), allowed)}; allowed are "
                    f"{', '.join(allowed)}"
                )
            types, words = _TYPES.get(key, ((str,), "a text"))
            if not isinstance(value, types) or isinstance(value, bool):
                raise ConfigError(f"{where}.{key}: {value!r} is not {words}")
        for key in ("layout", "root"):
            if key not in given:
                raise ConfigError(f"{where}.{key}: missing")
        for key in ("root", "list"):
            if key in given:
                try:
                    given[key] = Path(given[key]).expanduser()
                except RuntimeError as error:
                    problem = f"{given[key]!r}: no folder of that user is known"
                    raise ConfigError(f"{where}.{key}: {problem}") from error
        if "view" in given:
            given["view"] = ViewSettings.from_config(f"{where}.view", given["view"])
        return cls(name=name, **given)


_WORDS = {
    "query_crop": ("box", "whole"),
    "axes": ("HWC", "CHW"),
    "orientation": ("stored", "exif"),
    "on_error": ("stop", "skip"),
}

_ABSENT = {"axes": (None,)}

# Of the keys that are no texts.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("root", "list"), ((str, Path), "a path")),
    **dict.fromkeys(
        ("per_class", "limit", "per_superclass", "min_side"), ((int,), "a whole number")
    ),
    "view": ((Mapping,), "a mapping"),
    **dict.fromkeys(("max_megapixels", "rate"), ((int, float), "a number")),
}
