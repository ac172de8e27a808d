"""The settings of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vitfeat.data.images import Orientation
from vitfeat.data.layouts import LAYOUTS
from vitfeat.data.views.settings import ViewSettings
from vitfeat.errors import ConfigError
from vitfeat.text import nearest


@dataclass(frozen=True)
class DatasetSpec:
    """Where a dataset lies and which of its images to use.

    Parameters
    ----------
    name
        What the dataset is called; errors name it.
    layout
        How the folder is laid out: a key of :data:`vitfeat.data.layouts.LAYOUTS`.
    root
        The folder that image ids are relative to.
    split
        First-level folder to use, for layouts that know splits.
    list
        Text file that names the images, for the layout ``list``.
    per_class
        Use the first so many valid images of each class.
    limit
        Use the first so many valid images of all.
    per_superclass
        PartImageNet: use so many images of each superclass, taken evenly over its classes.
    query_crop
        Revisited Oxford and Paris: whether of queries the ``box`` around the landmark is used, as
        officially, or the ``whole`` image.
    view
        How images become inputs; the layout's usual view if not given.
    orientation
        Whether images are used as they are ``stored``, as the published models saw theirs, or
        turned as their ``exif`` says, as viewers show them. Annotations are of the same.
    on_error
        What an unusable image does: ``"stop"`` or ``"skip"``.
    min_side
        Fewest pixels of an image's width and height.
    max_megapixels
        Most pixels of an image, in millions.

    Raises
    ------
    ConfigError
        If a setting is of the wrong type, out of range, or at odds with the layout; the message
        names the key as ``datasets.NAME.KEY``.
    """

    name: str
    layout: str
    root: Path
    split: str | None = None
    list: Path | None = None
    per_class: int | None = None
    limit: int | None = None
    per_superclass: int | None = None
    query_crop: Literal["box", "whole"] = "box"
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
        if self.list is not None and not layout.reads_list:
            raise self.error("list", f"the layout {self.layout} reads no list; use layout: list")
        if self.list is None and layout.reads_list:
            raise self.error("list", f"missing; the layout {self.layout} needs a list file")
        if self.query_crop not in ("box", "whole"):
            raise self.error("query_crop", f"{self.query_crop!r} is not one of box, whole")
        given = {"per_superclass": self.per_superclass is not None, "query_crop": self.whole_query}
        for key, is_given in given.items():
            if is_given and key not in layout.settings:
                raise self.error(key, f"the layout {self.layout} does not know it; remove it")
        for key in ("per_class", "per_superclass", "limit", "min_side"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise self.error(key, f"{value} is below 1")
        if self.orientation not in ("stored", "exif"):
            raise self.error("orientation", f"{self.orientation!r} is not one of stored, exif")
        if self.on_error not in ("stop", "skip"):
            raise self.error("on_error", f"{self.on_error!r} is not one of stop, skip")
        if not 0 < self.max_megapixels < float("inf"):
            raise self.error("max_megapixels", f"{self.max_megapixels} is not a number above 0")

    @property
    def whole_query(self) -> bool:
        """Whether queries are used as whole images."""
        return self.query_crop == "whole"

    def error(self, key: str, problem: str) -> ConfigError:
        """Make the error that blames one of the settings."""
        return ConfigError(f"datasets.{self.name}.{key}: {problem}")

    @classmethod
    def from_config(cls, name: str, mapping: Mapping[str, Any]) -> DatasetSpec:
        """Make the settings from one entry of the config's ``datasets``.

        Parameters
        ----------
        name
            The entry's key.
        mapping
            The entry. Keys are the parameters of this class; null is the same as absence. ``~`` in
            paths is expanded; relative paths stay relative to the working directory.

        Raises
        ------
        ConfigError
            If a key is unknown, absent or of the wrong type, or as this class does.
        """
        where = f"datasets.{name}"
        allowed = [field.name for field in fields(cls) if field.name != "name"]
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{where}: must be a mapping with the keys {', '.join(allowed)}")
        given = {key: value for key, value in mapping.items() if value is not None}
        for key, value in given.items():
            if key not in allowed:
                raise ConfigError(
                    f"{where}.{key}: unknown key{nearest(str(key), allowed)}; allowed are "
                    f"{', '.join(allowed)}"
                )
            types, words = _TYPES[key]
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


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "layout": ((str,), "a text"),
    "root": ((str, Path), "a path"),
    "split": ((str,), "a text"),
    "list": ((str, Path), "a path"),
    "per_class": ((int,), "a whole number"),
    "limit": ((int,), "a whole number"),
    "per_superclass": ((int,), "a whole number"),
    "query_crop": ((str,), "a text"),
    "view": ((Mapping,), "a mapping"),
    "orientation": ((str,), "a text"),
    "on_error": ((str,), "a text"),
    "min_side": ((int,), "a whole number"),
    "max_megapixels": ((int, float), "a number"),
}
