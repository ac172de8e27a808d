"""What a config holds beside the settings of analyses, which their packages have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict

from vitfeat.analyses.settings import Count, Layers, SomeOf, words
from vitfeat.data.spec import LAYOUTS
from vitfeat.store.layout import TAPS

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What datasets and sets of models may be called: their names are those of files."""

_NAMES: JsonDict = {
    "propertyNames": {
        "pattern": NAME,
        "allowed": "letters, digits, '.', '_' and '-', of which the first is a letter or digit",
    }
}

Path: TypeAlias = Annotated[str, StringConstraints(min_length=1)]
Tap: TypeAlias = Annotated[str, WithJsonSchema({"enum": list(TAPS)})]
Layout: TypeAlias = Annotated[str, WithJsonSchema({"enum": list(LAYOUTS)})]
Size: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=2)]
Auto: TypeAlias = Annotated[str, StringConstraints(pattern="^auto$")]


class _Part(BaseModel):
    """A mapping of the config that has no other keys than these."""

    model_config = ConfigDict(extra="forbid")


def _needs(*keys: str) -> ConfigDict:
    """Return what says that the other fields may be absent, whose defaults are not said here."""
    return ConfigDict(json_schema_extra={"required": list(keys)})


class Entry(_Part):
    """A model of the user's own."""

    model_config = _needs("source", "name")

    source: Literal["timm", "open_clip", "checkpoint", "demo", "noise"] = Field(
        description="Library that builds the model; checkpoint is a weight file of your own, noise "
        "the baseline without a network."
    )
    name: str = Field(description="The library's name of the architecture.")
    family: str = Field(description="Supervision; it gives the colour in figures.")
    label: str = Field(description="Name in figures.")
    pretrained: bool | str = Field(
        description="timm: true or false; open_clip: tag of the weights or false."
    )
    weights: str | dict[str, Any] | None = Field(
        description="Where published weights are: a hub repository (owner/name or "
        "owner/name@revision), a URL, or a mapping with repository or url, file, revision, sha256."
    )
    checkpoint: str | None = Field(description="Path of a local weight file.")
    checkpoint_key: str | None = Field(
        description="Entry of the weight file that holds the state dict; found from its keys if "
        "not given."
    )
    checkpoint_prefix: str | None = Field(
        description="Prefix of the backbone's keys in the file; found from its keys if not given."
    )
    checkpoint_size: Size | None = Field(
        description="Height and width of the images that the weights were trained on, if they were "
        "not square."
    )
    args: dict[str, Any] = Field(description="Further arguments of the architecture.")
    seed: int = Field(description="Seed of an untrained network, or of noise.")
    image_size: Count | Size | None = Field(
        description="Side of the square input in pixels, or [height, width]."
    )
    positions: str | None = Field(
        description="How position embeddings are fitted to another size: timm, dino, mae, moco, "
        "google or beit; the family's own way if not given."
    )
    normalisation: str | dict[str, Any] | None = Field(
        description="How images were normalised in training: imagenet, clip, half, or mean and "
        "std. Needed with weights of which neither file nor family tells it."
    )
    crop_fraction: float = Field(
        gt=0, le=1, description="Share of the resized short side that the centre crop keeps."
    )


class DatasetView(_Part):
    """How images become inputs; the layout's usual view if not given."""

    model_config = _needs()

    kind: Literal["square", "padded", "dense"] = Field(
        description="square (resized, centre cut out), padded (aspect kept, padded to the model's "
        "size) or dense (aspect kept, at a size of its own)."
    )
    short_side: Count | None = Field(
        description="dense: short side of the resized image in pixels."
    )
    long_side: Count | None = Field(
        description="dense: long side of it, in the place of the short one."
    )
    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="square: share of the resized short side that the centre crop keeps, for all "
        "models; each model's own if not given. 1 keeps the whole short side."
    )
    interpolation: Literal["bicubic", "bilinear", "lanczos"] | None = Field(
        description="How images are resized, for all models; each model's own if not given."
    )
    passes: Literal["auto", "one", "tiled"] = Field(
        description="dense: one pass, tiled into windows of the model's size, or auto: one for "
        "families whose own code takes any size."
    )


class Dataset(_Part):
    """A dataset."""

    model_config = _needs("layout")

    layout: Layout = Field(description="How the folder is laid out.")
    root: Path = Field(
        description="The dataset's folder; embedded for the small one that is made from the digits."
    )
    split: str | None = Field(description="First-level folder to use.")
    list: Path | None = Field(description="Text file that lists the images (layout list).")
    per_class: Count | None = Field(description="First so many valid images of each class.")
    limit: Count | None = Field(description="First so many valid images.")
    per_superclass: Count | None = Field(
        description="PartImageNet: so many images of each superclass, evenly over its classes."
    )
    query_crop: Literal["box", "whole"] = Field(
        description="Revisited Oxford and Paris: the box around a query's landmark, or the whole "
        "image."
    )
    images: str | None = Field(
        description="Where images are in their containers: the column (parquet), the array (hdf5), "
        "the ending of members (webdataset); the only one there is if not given."
    )
    labels: str | None = Field(
        description="Where labels are, likewise, or a key of the JSON members; folder for the name "
        "of the folder that an image or a video is in."
    )
    ids: str | None = Field(
        description="Column or array of the images' ids; place for where an image stands, such as "
        "a.parquet#row=3; their own names if not given, where they have some."
    )
    axes: Literal["HWC", "CHW"] | None = Field(
        description="hdf5: order of an image's axes in its array, HWC if not given."
    )
    rate: float | None = Field(
        description="video: frames of a second that are used, those at or next after its parts; "
        "all if not given."
    )
    view: DatasetView | None = Field(
        description="How images become inputs; the layout's usual view if not given."
    )
    orientation: Literal["stored", "exif"] = Field(
        description="Whether images are used as stored, as the published models saw theirs, or "
        "turned as their EXIF says, as viewers show them; annotations are of the same."
    )
    on_error: Literal["stop", "skip"] = Field(
        description="What a broken image does: stop, or be skipped and recorded."
    )
    min_side: Count = Field(description="Smallest side of an image in pixels.")
    max_megapixels: float = Field(gt=0, description="Largest image.")


class Extraction(_Part):
    """How images are pushed through the models."""

    taps: tuple[Tap, ...] = Field(
        (),
        description="Stored beside what the analyses need, of datasets whose view can have it.",
    )
    keep: tuple[Tap, ...] | None = Field(
        None,
        description="Taps that stay on the disk; all others go when the last job that reads them "
        "is done. null keeps all.",
    )
    layers: Layers = Field("all", description="Layers to store, by name or number.")
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="Element type of stored features."
    )
    keep_bits: int | None = Field(
        None,
        ge=1,
        le=22,
        description="Bits of mantissa that stored features and attention are rounded to, which "
        "makes stores smaller; null keeps all: 10 of float16, 23 of float32.",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of the forward pass."
    )
    batch_size: Count = Field(32, description="Images decoded (and on a GPU pushed) together.")
    device: Annotated[
        str,
        StringConstraints(pattern="^(auto|cpu|cuda(:[0-9]+)?)$"),
        words("auto, cpu, cuda (an NVIDIA GPU) or cuda:N (the one of the number N)"),
    ] = Field(
        "auto",
        description="auto, cpu, cuda or cuda:N: of extractions, Gram matrices, k-NN and probes. "
        "Jobs ask for one GPU with cuda, and with auto where --resources gpu=N or a profile says "
        "that there are some.",
    )
    workers: Annotated[Annotated[int, Field(ge=0)] | Auto, words("auto or a number from 0")] = (
        Field("auto", description="Processes that decode; auto fits them to the threads.")
    )
    jobs: Annotated[Count | Auto, words("auto or a number from 1")] = Field(
        1,
        description="Jobs that share the extraction of one model and dataset, and a last one that "
        "seals the store; auto makes jobs of a few hours. One store has the same bytes on a CPU.",
    )
    together: bool = Field(
        True,
        description="Whether one job pushes a dataset through all models where that takes each as "
        "long as a process takes to start. Stores are the same.",
    )
    replace: bool = Field(
        True,
        description="Whether a store from other settings is replaced by the one asked for.",
    )


class Figures(_Part):
    """What figures across models show."""

    sets: Mapping[str, SomeOf[str]] = Field(
        {},
        description="Named choices of models, for figures of their own beside those of all models.",
        json_schema_extra=_NAMES,
    )


class ConfigModel(_Part):
    """A config of vitfeat."""

    results: Path = Field("results", description="Folder that everything is written to.")
    models: SomeOf[str] = Field(
        description="Ids of the models to run, from the catalogue (`vitfeat models`) or from "
        "`catalog` below."
    )
    catalog: Mapping[str, Entry] = Field(
        {}, description="Models of your own, by id, with the same fields as the catalogue."
    )
    weights: Path = Field(
        "weights",
        description="Folder of fetched weights; the record of each model pins what was fetched, so "
        "keep it.",
    )
    datasets: Mapping[str, Dataset] = Field(
        min_length=1, description="Datasets by name.", json_schema_extra=_NAMES
    )
    extraction: Extraction = Field(
        Extraction(), description="How images are pushed through the models."
    )
    figures: Figures = Field(Figures(), description="What figures across models show.")
