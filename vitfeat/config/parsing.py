"""The config: checked as a whole before any job runs, and turned into typed settings.

The schema says which keys there are, of which type and with which default; this module says in one
line what is wrong, and checks what a schema cannot: that names refer to something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from vitfeat.analyses.own import register_own
from vitfeat.analyses.registry import analyses
from vitfeat.analyses.settings import LearntSettings
from vitfeat.config.checks import check_apart, check_views
from vitfeat.config.config import UNLABELLED, Config
from vitfeat.config.files import read_file
from vitfeat.config.imported import check_imported
from vitfeat.config.model import ConfigModel
from vitfeat.config.yaml_file import parse_yaml
from vitfeat.data.spec import LAYOUTS, DatasetSpec
from vitfeat.demo import datasets as demo
from vitfeat.errors import ConfigError
from vitfeat.models.entry import ModelEntry, find_entry
from vitfeat.models.entry_checks import check_entry
from vitfeat.settings.messages import flaws, kind_of
from vitfeat.settings.part import faults_of
from vitfeat.settings.schema import schema_of
from vitfeat.text import nearest


def read_config(path: Path) -> Config:
    """Read and check a config file."""
    return parse_config(read_file(path))


def _with_own(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make the modules that a config names analyses, and return it without their paths."""
    asked = raw.get("analyses")
    if not isinstance(asked, Mapping):
        return raw
    own = {n: s["module"] for n, s in asked.items() if isinstance(s, Mapping) and "module" in s}
    if not own:
        return raw
    for name, path in own.items():
        if not isinstance(path, str):
            raise ConfigError(f"analyses.{name}.module: found {path!r}; allowed: a path")
    register_own(own)
    plain = {n: {k: v for k, v in s.items() if k != "module"} for n, s in asked.items() if n in own}
    return {**raw, "analyses": {**asked, **plain}}


def config_schema() -> Mapping[str, Any]:
    """Return the JSON schema of a config: every key with its description and default."""
    schema = schema_of(ConfigModel)
    asked = {name: schema_of(a.settings, a.settings.required) for name, a in analyses().items()}
    schema["properties"]["analyses"] = {
        "description": "What is computed from the stores.",
        "type": "object",
        "additionalProperties": False,
        "default": {},
        "properties": asked,
    }
    return schema


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Check a config and fill in its defaults; it is not changed."""
    _check_names(raw)
    raw = _with_roots(_with_own(raw))
    schema = config_schema()
    raw = _typed(raw, schema)
    if faults := list(flaws(raw, schema, "config: ")):
        raise ConfigError(*faults)
    try:
        whole = ConfigModel(**{key: value for key, value in raw.items() if key != "analyses"})
    except ValidationError as error:
        raise ConfigError(*faults_of(error, "")) from error
    results = whole.results
    datasets = {name: _placed(spec, results) for name, spec in whole.datasets.items()}
    check_apart(results, datasets.values())
    said = raw.get("analyses", {})
    # In one order however they are written, which tables and commands follow.
    asked = {
        name: analysis.settings.checked(f"analyses.{name}.", said[name])
        for name, analysis in analyses().items()
        if name in said
    }
    for name, settings in asked.items():
        _check_datasets(name, "datasets", settings.datasets, datasets)
        if isinstance(settings, LearntSettings):
            _check_train(name, settings, datasets)
    models = tuple(find_entry(m, whole.catalog) for m in whole.models)
    checked = Config(
        results=results,
        weights=whole.weights,
        models=models,
        datasets=datasets,
        extraction=whole.extraction,
        analyses=asked,
        sets=_sets(whole.figures.sets, whole.models),
        figures=whole.figures.model_dump(mode="json", exclude={"sets"}, exclude_defaults=True),
        remarks=(
            *_left_empty(models),
            *(line for model in models for line in check_entry(model)),
        ),
    )
    check_views(checked)
    _check_stored(checked)
    check_imported(checked)
    return checked


def _check_stored(config: Config) -> None:
    """Refuse analyses of the user's own that read stores which would hold nothing."""
    for name, settings in config.analyses.items():
        for dataset in settings.datasets if analyses()[name].module else ():
            if not config.taps(dataset):
                raise ConfigError(
                    f"analyses.{name}: nothing is stored of {dataset!r}: give its Settings a "
                    "method required_taps, or name what it reads in extraction.taps"
                )


def _left_empty(models: Sequence[ModelEntry]) -> Iterator[str]:
    """Yield of which models the key of a weight file was left empty: they are untrained."""
    for model in models:
        for key in ("checkpoint", "weights"):
            empty = key in model.model_fields_set and getattr(model, key) is None
            if empty and not (model.checkpoint or model.is_fetched):
                yield f"model {model.id}: catalog.{model.id}.{key} is empty, so it is untrained"


def _check_names(value: Any, where: str = "") -> None:
    """Refuse names that YAML reads as numbers or truth values: nothing would find them again."""
    if isinstance(value, list):
        value = dict(zip(map(str, range(len(value))), value, strict=True))
    for key, below in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(key, str):
            raise ConfigError(
                f"config: {where or 'top level'}: found {key!r} ({kind_of(key)}) as a name; "
                "allowed: a text: write it in quotes"
            )
        _check_names(below, f"{where}.{key}" if where else key)


def _sets(sets: Mapping[str, Sequence[str]], models: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if "all" in sets:
        raise ConfigError(
            "figures.sets.all: that is the name of the figures of all models, which are drawn "
            "anyway; choose another"
        )
    for name, chosen in sets.items():
        for model in chosen:
            if model not in models:
                raise ConfigError(
                    f"figures.sets.{name}: unknown model {model!r}{nearest(model, models)}; the "
                    f"config's `models` has: {', '.join(models)}"
                )
    return {name: tuple(chosen) for name, chosen in sets.items()}


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Read texts as what the schema wants in their place.

    Snakemake gives every number and truth value inside an override such as
    ``--config extraction='{batch_size: 16}'`` as a text.
    """
    if isinstance(value, Mapping):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        other = other if isinstance(other, Mapping) else {}
        return {k: _typed(v, known.get(k, other)) for k, v in value.items()}
    if isinstance(value, list):
        return [_typed(v, schema.get("items", {})) for v in value]
    if not isinstance(value, str):
        return value
    kinds = schema.get("type", "string")
    try:
        read = parse_yaml(value)
    except ConfigError:
        return value
    wanted = {k for k in ([kinds] if isinstance(kinds, str) else kinds) if k != "string"}
    fits = any(Draft202012Validator({"type": kind}).is_valid(read) for kind in wanted)
    return read if fits else value


def _with_roots(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config whose digits are the embedded ones, which nobody has to say."""
    datasets = raw.get("datasets")
    if not isinstance(datasets, Mapping):
        return raw
    # Of a layout that is none, that is the fault, and not that a root is missing.
    others = LAYOUTS.keys() - {"digits"}
    usual = {
        name: {"root": EMBEDDED, **dataset}
        for name, dataset in datasets.items()
        if isinstance(dataset, Mapping) and dataset.get("layout", "") not in ("", *others)
    }
    return {**raw, "datasets": {**datasets, **usual}}


def _placed(spec: DatasetSpec, results: Path) -> DatasetSpec:
    """Return a dataset with the folder that an embedded one is written to."""
    if str(spec.root) != EMBEDDED:
        return spec
    if spec.layout not in demo.NAMES:
        raise ConfigError(
            f"datasets.{spec.name}.root: no small dataset of the layout {spec.layout!r} is "
            f"embedded; those that are: {', '.join(demo.NAMES)}"
        )
    return spec.but(root=demo.embedded_root(results, spec.layout))


#: What `root` says to take the small dataset that is made from the digits.
EMBEDDED = "embedded"


def _check_train(
    analysis: str, settings: LearntSettings, datasets: Mapping[str, DatasetSpec]
) -> None:
    """Hold every dataset to one that it is learnt from."""
    train, where = settings.train, f"analyses.{analysis}.train"
    for name in settings.datasets:
        if name not in train:
            raise ConfigError(
                f"{where}: names no dataset that {name!r} is classified from; add one: "
                f"{{{name}: ...}}"
            )
    for name, source in train.items():
        if name not in settings.datasets:
            raise ConfigError(
                f"{where}.{name}: is not among analyses.{analysis}.datasets, which has: "
                f"{', '.join(settings.datasets)}"
            )
        if name == source:
            raise ConfigError(f"{where}.{name}: a dataset cannot be classified from itself")
    _check_datasets(analysis, "train", list(train.values()), datasets)


def _check_datasets(
    analysis: str, key: str, names: Sequence[str], datasets: Mapping[str, DatasetSpec]
) -> None:
    for name in names:
        where = f"analyses.{analysis}.{key}"
        if name not in datasets:
            raise ConfigError(
                f"{where}: unknown dataset {name!r}{nearest(name, datasets)}; the config's "
                f"`datasets` has: {', '.join(datasets)}"
            )
        layout = datasets[name].layout
        if analyses()[analysis].labels and layout in UNLABELLED:
            labelled = [n for n, s in datasets.items() if s.layout not in UNLABELLED]
            raise ConfigError(
                f"{where}: {analysis} needs a label for every image, and the layout {layout!r} of "
                f"dataset {name!r} has none; datasets with labels: {', '.join(labelled) or 'none'}"
            )
        needed = analyses()[analysis].annotations
        if needed not in (None, datasets[name].annotations):
            layouts = [n for n, x in LAYOUTS.items() if x.annotations == needed]
            raise ConfigError(
                f"{where}: {analysis} needs a dataset of the layout {' or '.join(layouts)}, and "
                f"{name!r} is of {layout}"
            )
