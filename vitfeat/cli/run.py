"""Commands that the workflow's rules call: one for every kind of job, and for figures.

What they take follows from what analyses say of themselves.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitfeat.analyses.base import ROOT, Across, AcrossPairs, Analysis, Job
from vitfeat.analyses.registry import analyses
from vitfeat.analyses.settings import Settings
from vitfeat.cli.arguments import (
    MODEL,
    AddCommand,
    call_all,
    figure_flag,
    from_json,
    layer,
    models_json,
    positive,
    sets_json,
)
from vitfeat.cli.models import read_entry
from vitfeat.cli.passes import add_pass_flags, all_ways
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.console import Console
from vitfeat.errors import ConfigError
from vitfeat.jobs.pair_tables import pairs_of

if TYPE_CHECKING:
    from vitfeat.figures.models import Model

_OTHER, _TOKENS = "{other}", "{tokens}"
_MODELS_JSON = "[{id, label, family, size}, ...] as JSON"

BELOW = "folder that stands before the paths of tables and figures"


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("run", _run, "turn stores into tables and pictures: what the workflow runs")
    jobs = sub.add_subparsers(required=True, metavar="JOB")
    for analysis in analyses().values():
        for job in analysis.jobs:
            _add_job(jobs.add_parser, analysis, job)
    text = "put tables of some layers together into that of all"
    sub = jobs.add_parser("join_layers", help=text, description=text)
    sub.add_argument("tables", nargs="+")
    sub.add_argument("--store", type=Path, required=True, help="the store that they are of")
    sub.add_argument("--out", required=True, help="the table to write")
    _add_ways(sub)
    sub.set_defaults(handler=_join)

    sub = command("draw", _draw, "draw the tables of several models")
    drawn = sub.add_subparsers(required=True, metavar="ANALYSIS")
    for analysis in analyses().values():
        if analysis.across is not None:
            _add_across(drawn.add_parser, analysis, analysis.across)


def _add_across(add_parser: Any, analysis: Analysis, across: Across | AcrossPairs) -> None:
    text = f"draw the tables of {analysis.name} of several models"
    sub: argparse.ArgumentParser = add_parser(analysis.name, help=text, description=text)
    sub.add_argument("--log", type=Path, help="write the messages to this file")
    sub.add_argument("folder", type=Path, help="where tables of {dataset}/{model} are")
    sub.add_argument("--out", type=Path, help="where figures go; default: there, too")
    sub.add_argument("--below", type=Path, help=BELOW)
    figure_flag(sub)
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--models", required=True, help=_MODELS_JSON)
    sub.add_argument("--sets", default="{}", help="{name: [id, ...]} as JSON: choices of models")
    add_settings(sub, analysis.settings, analysis.drawn_by)
    sub.set_defaults(across=(analysis, across))


def _add_job(add_parser: Any, analysis: Analysis, job: Job) -> None:
    text = (analysis.settings.__doc__ or "").partition("\n")[0]
    sub: argparse.ArgumentParser = add_parser(job.name, help=text, description=text)
    for place, (key, pattern) in enumerate({**job.inputs, **job.outputs}.items()):
        words: dict[str, Any] = {"required": key not in job.optional} if place else {}
        name = f"--{key.replace('_', '-')}" if place else key
        sub.add_argument(name, metavar=key.upper(), help=f"in a workflow {pattern}", **words)
    if job.together:
        sub.add_argument("--models", required=True, help=_MODELS_JSON)
    else:
        places = f"{MODEL} and {_OTHER} stand" if job.of_pairs else f"{MODEL} stands"
        text = f"what {places} for in paths"
        sub.add_argument("--models", nargs="+", default=[], metavar="ID", help=text)
    if job.of_pairs and not job.together:
        text = "the one whose pairs are made; default: those of all"
        sub.add_argument("--of", metavar="ID", help=text)
    if job.label:
        sub.add_argument("--labels", nargs="+", default=[""], help="names of models in titles")
    if analysis.settings.own_pass:
        text = "the models' fields as JSON, by id, in the place of the catalogue's"
        sub.add_argument("--entries", default="{}", help=text)
        text = "what decides a store's numbers, as JSON: the config's extraction, and view"
        sub.add_argument("--extraction", default="{}", help=text)
        add_pass_flags(sub)
    elif job.gpu:
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    if job.by_layers:
        sub.add_argument(
            "--layers",
            nargs="+",
            type=layer,
            default=["all"],
            help="by name or number; numbers that are not stored are passed over (default: all)",
        )
    _add_ways(sub)
    sub.add_argument("--max-mb", type=positive, help="bound on the features in memory")
    kinds = ("tokens",) if job.of_tokens and not job.together else ()
    add_settings(sub, analysis.settings, (*kinds, *job.settings))
    sub.set_defaults(job=(analysis, job))


def _add_ways(sub: argparse.ArgumentParser) -> None:
    """Add the flags that every rule gives."""
    sub.add_argument("--log", type=Path, help="write the messages to this file")
    sub.add_argument("--below", type=Path, help=BELOW)
    figure_flag(sub)
    sub.add_argument("--threads", type=positive, default=1)


def _run(options: argparse.Namespace, console: Console) -> None:
    analysis, job = options.job
    function = analysis.function(job.call)
    ways: dict[str, Any] = {"threads": options.threads}
    ways["settings"] = given_settings(options, analysis.settings)
    ways["device"] = options.device
    ways["layers"] = getattr(options, "layers", None)
    if options.max_mb is not None:
        ways["max_bytes"] = options.max_mb * 2**20
    ways = _taken(function, ways)
    patterns = {**job.inputs, **job.outputs}
    paths = [_put(options, getattr(options, key), pattern) for key, pattern in patterns.items()]
    if job.together:
        function(*_paths(paths, MODEL), models=_shown(options), **ways)
        return
    several = any(MODEL in path for path in paths if path is not None)
    if several and not options.models:
        raise ConfigError(f"--models: say which models {MODEL} stands for")
    models = options.models if several else [""]
    if job.of_pairs:
        settings = given_settings(options, analysis.settings)
        pairs = list(_pairs(job, paths, pairs_of(models, options.of), settings))
        if len({tuple(given[2 * len(job.inputs) :]) for given in pairs}) < len(pairs):
            raise ConfigError(
                f"--{next(iter(job.outputs))}: found one file for {len(pairs)}; its name needs "
                f"{MODEL} and {_OTHER}, and {_TOKENS} for several kinds of tokens"
            )
        call_all([("", partial(function, *given, **ways)) for given in pairs], console)
        return
    labels = getattr(options, "labels", [""])
    calls = []
    for place, model in enumerate(models):
        named: dict[str, Any] = {"label": labels[min(place, len(labels) - 1)]} if job.label else {}
        if analysis.settings.own_pass:
            named["push"] = _push(options, model, console)
        calls.append((model, partial(function, *_paths(paths, model), **{**ways, **named})))
    call_all(calls, console)


def _push(options: argparse.Namespace, model: str, console: Console) -> Callable[..., None]:
    """Return a function that pushes images through a model, into a store of a job's own."""
    from vitfeat.data.index import Index
    from vitfeat.extraction.from_entry import extract_from_entry
    from vitfeat.extraction.settings import Settings as PassSettings
    from vitfeat.files import write_json
    from vitfeat.store.paths import manifest_path, place_of

    entries = from_json(options.entries, "--entries")
    model_id = model or next(iter(entries), "")
    fields = json.dumps(entries[model_id]) if model_id in entries else None
    entry = read_entry(model_id, fields)
    numbers = from_json(options.extraction, "--extraction")
    settings = PassSettings.checked("--extraction: ", numbers)
    ways = all_ways(options)

    def push(index: Index, root: Path, store: Path, manifest: Path, taps: Sequence[str]) -> None:
        sealed = extract_from_entry(
            entry,
            index,
            root,
            place_of(store),
            settings.but(taps=taps, replace=True, **ways),
            weights_folder=options.weights_folder,
            progress=console.progress,
        )
        if sealed is not None and manifest != manifest_path(place_of(store)):
            write_json(manifest, sealed)

    return push


def _join(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.jobs.layer_tables import join_layers

    *tables, out = ((options.below or Path()) / path for path in (*options.tables, options.out))
    join_layers(tables, options.store, out)


def _pairs(
    job: Job, paths: Iterable[str | None], pairs: Sequence[tuple[str, str]], settings: Settings
) -> Iterator[list[Path]]:
    """Yield what a function that compares two models is called with, for each kind and pair."""
    sides, made = len(job.inputs), [str(path) for path in paths]
    several = any(_TOKENS in path for path in made)
    for kind in getattr(settings, "tokens", ()) if several else [""]:
        for a, b in pairs:
            given = [path.replace(MODEL, model) for path in made[:sides] for model in (a, b)]
            given += [path.replace(MODEL, a).replace(_OTHER, b) for path in made[sides:]]
            yield [Path(path.replace(_TOKENS, kind)) for path in given]


def _put(options: argparse.Namespace, path: str | Path | None, pattern: str = "") -> str | None:
    """Return where tables and figures stand; stores and what is told of datasets stay in place."""
    stays = pattern.startswith(("datasets/", ROOT)) or pattern.endswith(".zarr")
    if path is None:
        return None
    return str(path) if options.below is None or stays else str(options.below / path)


def _draw(options: argparse.Namespace, console: Console) -> None:
    analysis, across = options.across
    models = _shown(options)
    folder = Path(str(_put(options, options.folder)))
    out = options.out or folder
    sets = {
        chosen: [model for model in models if model.id in ids]
        for chosen, ids in sets_json(options.sets, [m.id for m in models]).items()
    }
    settings = given_settings(options, analysis.settings)
    if isinstance(across, AcrossPairs):
        function = analysis.function(across.draw)
        draw = partial(function, **_taken(function, {"settings": settings}))
        places = {out: models, **{out / "sets" / chosen: some for chosen, some in sets.items()}}
        calls = [
            partial(draw, folder, options.datasets, some, place) for place, some in places.items()
        ]
    else:
        from vitfeat.jobs.figures_across import draw_overview, draw_set

        given = analysis, settings, folder
        calls = [
            partial(draw_set, *given, dataset, some, out / dataset / "sets" / chosen)
            for dataset in options.datasets
            for chosen, some in {"all": models, **sets}.items()
        ]
        overview = out / "all.png"
        calls.append(partial(draw_overview, *given, options.datasets, models, overview))
    call_all([("", call) for call in calls], console)


def _taken(function: Callable[..., None], ways: dict[str, Any]) -> dict[str, Any]:
    """Return what a function has parameters for."""
    takes = inspect.signature(function).parameters
    return {key: value for key, value in ways.items() if key in takes}


def _paths(paths: Iterable[str | None], model: str) -> list[Path | None]:
    return [None if path is None else Path(path.replace(MODEL, model)) for path in paths]


def _shown(options: argparse.Namespace) -> list[Model]:
    from vitfeat.figures.models import models_from

    return models_from(models_json(options.models))
