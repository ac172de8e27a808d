"""Commands that the workflow's rules call: one for every kind of job, and for figures.

What they take follows from what analyses say of themselves.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from vitfeat.analyses.base import ROOT, Analysis, Job
from vitfeat.analyses.registry import analyses
from vitfeat.cli.arguments import AddCommand, from_json, models_json, positive
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.console import Console
from vitfeat.errors import ConfigError, VitfeatError

_MODEL = "{model}"

BELOW = "folder that stands before the paths of tables and figures"


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("run", _run, "turn stores into tables and pictures: what the workflow runs")
    jobs = sub.add_subparsers(required=True, metavar="JOB")
    for analysis in analyses().values():
        for job in analysis.jobs:
            _add_job(jobs.add_parser, analysis, job)

    sub = command("draw", _draw, "draw the tables of several models")
    sub.add_argument("analysis", choices=[a.name for a in analyses().values() if a.across])
    sub.add_argument("folder", type=Path, help="where tables of {dataset}/{model} are")
    sub.add_argument("--out", type=Path, help="where figures go; default: there, too")
    sub.add_argument("--below", type=Path, help=BELOW)
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--models", required=True, help="[{id, label, family, size}, ...] as JSON")
    sub.add_argument("--sets", default="{}", help="{name: [id, ...]} as JSON: choices of models")


def _add_job(add_parser: Any, analysis: Analysis, job: Job) -> None:
    text = (analysis.settings.__doc__ or "").partition("\n")[0]
    sub: argparse.ArgumentParser = add_parser(job.name, help=text, description=text)
    sub.add_argument("--log", type=Path, help="write the messages to this file")
    for place, (key, pattern) in enumerate({**job.inputs, **job.outputs}.items()):
        words: dict[str, Any] = {"required": True} if place else {}
        name = f"--{key.replace('_', '-')}" if place else key
        sub.add_argument(name, metavar=key.upper(), help=f"in a workflow {pattern}", **words)
    sub.add_argument(
        "--models", nargs="+", default=[], metavar="ID", help=f"what {_MODEL} stands for in paths"
    )
    if job.label:
        sub.add_argument("--labels", nargs="+", default=[""], help="names of models in titles")
    if job.gpu:
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    sub.add_argument("--below", type=Path, help=BELOW)
    sub.add_argument("--threads", type=positive, default=1)
    sub.add_argument("--max-mb", type=positive, help="bound on the features in memory")
    add_settings(sub, analysis.settings, job.settings)
    sub.set_defaults(job=(analysis, job))


def _run(options: argparse.Namespace, console: Console) -> None:
    analysis, job = options.job
    function = analysis.function(job.call)
    takes = inspect.signature(function).parameters
    ways: dict[str, Any] = {"log": console.log, "threads": options.threads}
    ways["settings"] = given_settings(options, analysis.settings)
    ways["device"] = options.device
    if options.max_mb is not None:
        ways["max_bytes"] = options.max_mb * 2**20
    ways = {key: value for key, value in ways.items() if key in takes}
    patterns = {**job.inputs, **job.outputs}
    paths = [_put(options, getattr(options, key), pattern) for key, pattern in patterns.items()]
    several = any(_MODEL in path for path in paths)
    if several and not options.models:
        raise ConfigError(f"--models: say which models {_MODEL} stands for")
    models = options.models if several else [""]
    labels = getattr(options, "labels", [""])
    for place, model in enumerate(models):
        if job.label:
            ways["label"] = labels[min(place, len(labels) - 1)]
        if several and "log" in ways:
            ways["log"] = _named(console.log, model)
        function(*(Path(path.replace(_MODEL, model)) for path in paths), **ways)


def _named(log: Callable[[str], None], model: str) -> Callable[[str], None]:
    """Return a log of one of several models, whose lines all say which."""
    begun = tuple(f"{model}{mark}" for mark in (":", ",", " "))
    return lambda line: log(line if line.startswith(begun) else f"{model}: {line}")


def _put(options: argparse.Namespace, path: str | Path, pattern: str = "") -> str:
    """Return where tables and figures stand; stores and what is told of datasets stay in place."""
    if options.below is None or pattern.startswith(("features/", "datasets/", ROOT)):
        return str(path)
    return str(options.below / path)


def _draw(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from

    across = analyses()[options.analysis].across
    assert across is not None
    analysis = analyses()[options.analysis]
    draw_set, overview = (_drawing(analysis, c) for c in (across.draw_set, across.draw_overview))
    models = models_from(models_json(options.models))
    sets = {"all": [m.id for m in models], **from_json(options.sets, "--sets")}
    folder = _put(options, options.folder)
    out = options.out or Path(folder)
    calls = []
    for dataset in options.datasets:
        for chosen, ids in sets.items():
            some = [model for model in models if model.id in ids]
            place = out / dataset / "sets" / chosen
            calls.append(partial(draw_set, Path(folder), dataset, some, place))
    calls.append(partial(overview, Path(folder), options.datasets, models, out / "all.png"))
    call_all(calls, console)


def call_all(calls: Iterable[Callable[[], None]], console: Console) -> None:
    """Call all, also behind one that fails; the first failure is raised, others are told."""
    failures = []
    for call in calls:
        try:
            call()
        except VitfeatError as error:
            failures.append(error)
    for line in list(dict.fromkeys(map(str, failures)))[1:]:
        console.log(line)
    if failures:
        raise failures[0]


def _drawing(analysis: Analysis, call: str) -> Callable[..., None]:
    """Return a function that draws, told whose scores where it draws those of many."""
    function = analysis.function(call)
    if "task" in inspect.signature(function).parameters:
        return partial(function, analysis.name)
    return function
