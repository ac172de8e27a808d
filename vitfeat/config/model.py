"""What a config holds beside the settings of analyses, which their packages have."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from vitfeat.data.spec import DatasetSpec
from vitfeat.extraction.settings import Extraction
from vitfeat.files import existing
from vitfeat.models.entry import Catalog, named
from vitfeat.settings.fields import Path, SomeOf
from vitfeat.settings.part import Part

# Names of datasets and of sets of models are those of files.
_NAMES: JsonDict = {
    "propertyNames": {
        "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z",
        "allowed": "letters, digits, '.', '_' and '-', of which the first is a letter or digit",
    }
}


def _written(path: pathlib.Path) -> pathlib.Path:
    """Hold a folder that rules write to to names that Snakemake is able to hold."""
    text = str(path)
    if found := re.search(r"[{}\x00-\x1f]", text):
        raise ValueError(
            f": found {text!r}; a folder that is written to has no {found.group()!r} in its name"
        )
    if text.startswith("-"):
        raise ValueError(f": found {text!r}, which reads like a flag; write its whole path")
    if not existing(path).is_dir():
        raise ValueError(f": {str(existing(path))!r} is a file, and a folder is needed")
    return path


Written: TypeAlias = Annotated[Path, AfterValidator(_written)]


class Figures(Part):
    """What figures across models show."""

    sets: Mapping[str, SomeOf[str]] = Field(
        {},
        description="Named choices of models, for figures of their own beside those of all models.",
        json_schema_extra=_NAMES,
    )
    format: SomeOf[Literal["png", "pdf", "svg"]] = Field(
        ("png", "pdf"),
        description="Files of every figure beside its CSV; a PNG is always among them.",
    )
    columns: Literal[1, 2] = Field(
        2,
        description="How many columns of a page's text figures by layer are as wide as: 1 (3.5 "
        "inches) or 2 (7.4).",
    )


class ConfigModel(Part):
    """A config of vitfeat."""

    results: Written = Field(
        pathlib.Path("results"), description="Folder that everything is written to."
    )
    models: SomeOf[str] = Field(
        description="Ids of the models to run, from the catalogue (`vitfeat models`) or from "
        "`catalog` below."
    )
    catalog: Catalog = Field(
        {}, description="Models of your own, by id, with the same fields as the catalogue."
    )
    weights: Written = Field(
        pathlib.Path("weights"),
        description="Folder of fetched weights; the record of each model pins what was fetched, so "
        "keep it.",
    )
    datasets: Annotated[Mapping[str, DatasetSpec], named("name")] = Field(
        min_length=1, description="Datasets by name.", json_schema_extra=_NAMES
    )
    extraction: Extraction = Field(
        Extraction(), description="How images are pushed through the models."
    )
    figures: Figures = Field(Figures(), description="What figures across models show.")
