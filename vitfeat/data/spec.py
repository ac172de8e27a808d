"""The settings of a dataset, and what is to be known of its layout before any file is read."""

from __future__ import annotations

import glob
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator
from pydantic.json_schema import SkipJsonSchema

from vitfeat.data.images import Orientation
from vitfeat.data.views import ViewSettings
from vitfeat.errors import ConfigError
from vitfeat.settings.fields import Count, Path, Positive
from vitfeat.settings.part import Part


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
        view=ViewSettings(kind="dense", long_side=512, passes="one"),
    ),
    "davis": Layout(
        "always",
        annotations="frames",
        files=("ImageSets/2017/{split}.txt", "Annotations/480p/*/*.png"),
        view=ViewSettings(kind="dense"),
    ),
    "spair": Layout(
        "always",
        annotations="points",
        files=("Layout/large/{split}.txt", "PairAnnotation/{split}/*.json"),
        view=ViewSettings(kind="padded"),
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


_LayoutName = Annotated[str, WithJsonSchema({"enum": list(LAYOUTS)})]


class DatasetSpec(Part):
    """Where a dataset lies and which of its images to use."""

    name: SkipJsonSchema[str]
    layout: _LayoutName = Field(description="How the folder is laid out.")
    root: Path = Field(
        description="The dataset's folder, or its one container; embedded for the small one that "
        "is made from the digits, which nobody has to say of the layout digits.",
        examples=["photos"],
    )
    split: str | None = Field(
        None, description="First-level folder, or split of the layout, to use."
    )
    list: Path | None = Field(None, description="Text file that lists the images (layout list).")
    per_class: Count | None = Field(None, description="First so many valid images of each class.")
    limit: Count | None = Field(None, description="First so many valid images.")
    per_superclass: Count | None = Field(
        None,
        description="PartImageNet: so many images of each superclass, evenly over its classes.",
    )
    query_crop: Literal["box", "whole"] = Field(
        "box",
        description="Revisited Oxford and Paris: the box around a query's landmark, or the whole "
        "image.",
    )
    images: str | None = Field(
        None,
        description="Where images are in their containers: the column (parquet), the array (hdf5), "
        "the ending of members (webdataset); the only one there is if not given.",
    )
    labels: str | None = Field(
        None,
        description="Where labels are, likewise, or a key of the JSON members; folder for the name "
        "of the folder that an image or a video is in.",
    )
    ids: str | None = Field(
        None,
        description="Column or array of the images' ids; place for where an image stands, such as "
        "a.parquet#row=3; their own names if not given, where they have some.",
    )
    axes: Literal["HWC", "CHW"] | None = Field(
        None, description="hdf5: order of an image's axes in its array, HWC if not given."
    )
    rate: Positive | None = Field(
        None,
        description="video: frames of a second that are used, those at or next after its parts; "
        "all if not given.",
    )
    view: ViewSettings | None = Field(
        None, description="How images become inputs; the layout's usual view if not given."
    )
    orientation: Orientation = Field(
        "stored",
        description="Whether images are used as stored, as the published models saw theirs, or "
        "turned as their EXIF says, as viewers show them; annotations are of the same.",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="What a broken image does: stop, or be skipped and recorded."
    )
    min_side: Count = Field(8, description="Smallest side of an image in pixels.")
    max_megapixels: Positive = Field(80.0, description="Largest image.")

    @classmethod
    def from_config(cls, name: str, mapping: Mapping[str, Any]) -> Self:
        """Make the settings of one entry of the config's ``datasets``."""
        return cls.checked(f"datasets.{name}.", mapping, name=name)

    @model_validator(mode="after")
    def _of_its_layout(self) -> Self:
        if faults := [*self._faults(LAYOUTS[self.layout])]:
            raise ValueError(*faults)
        return self

    def _faults(self, layout: Layout) -> Iterator[str]:
        """Yield what does not go with the layout."""
        split = self.split
        if split is None and layout.split == "always":
            yield f"split: missing; the layout {self.layout} needs it"
        if split is not None and layout.split == "never":
            yield f"split: the layout {self.layout} has no splits; remove it"
        elif split is not None and (not split or "/" in split or split.startswith(".")):
            yield f"split: {split!r} is not the name of a first-level folder"
        if self.list is not None and "list" not in layout.settings:
            yield f"list: the layout {self.layout} reads no list; use layout: list"
        if self.list is None and "list" in layout.settings:
            yield f"list: missing; the layout {self.layout} needs a list file"
        others = ("per_superclass", "images", "labels", "ids", "axes", "rate")
        given = {key: getattr(self, key) is not None for key in others}
        given["query_crop"] = self.whole_query
        for key, is_given in given.items():
            if is_given and key not in layout.settings:
                yield f"{key}: the layout {self.layout} does not know it; remove it"

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

    def error(self, key: str, problem: str) -> ConfigError:
        """Return the error that blames one of the settings."""
        return ConfigError(f"datasets.{self.name}.{key}: {problem}")

    def annotation_files(self) -> Sequence[pathlib.Path]:
        """Return the files that annotate the images, as far as they are there, sorted."""
        split = glob.escape(self.split or "")
        patterns = (p.replace("{split}", split) for p in LAYOUTS[self.layout].files)
        return sorted(path for pattern in patterns for path in self.root.glob(pattern))
