"""The jobs of analyses as the workflow's rules have them: inputs, outputs, commands, needs.

A rule is of one model and one dataset, or of all models of a dataset whose stores are so small that
starting a process for each would take longer than its work. Pairs of models are those of one model
with itself and with the models before it in the config, or all: a further model, written last,
costs its own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

from vitfeat.analyses.base import ROOT, Across, AcrossPairs, Analysis, Job, Needs, one_thread
from vitfeat.analyses.needs import minutes_in_turn
from vitfeat.analyses.registry import analyses, scored
from vitfeat.analyses.scoring import TOGETHER
from vitfeat.analyses.settings import Settings
from vitfeat.config.config import Config
from vitfeat.jobs.pair_tables import pair_tables, pairs_of
from vitfeat.models.layers import select_layers
from vitfeat.models.shapes import guess_shape, size_name
from vitfeat.plan.passes import entry_fields, pass_settings
from vitfeat.plan.small import is_small
from vitfeat.plan.study import Study
from vitfeat.store.layout import TOKEN_ARRAYS

_MODEL, _OTHER, _TOKENS = "{model}", "{other}", "{tokens}"

LAYERS_A_JOB = 6
"""Layers of a model that a job is of at most, where several share them."""

_LAYERS = "{layers}"


class Wildcards(Protocol):
    """Which dataset and, where a job is of one, which model it is of."""

    @property
    def dataset(self) -> str:
        """The dataset."""

    @property
    def model(self) -> str:
        """The model."""

    @property
    def layers(self) -> str:
        """Which of its layers, where a job is of some: a key of `layer_groups`."""


def goes(config: Config, settings: Settings, job: Job, dataset: str) -> bool:
    """Return whether a job reads arrays of a dataset that are dropped after use."""
    if not any(pattern.endswith(".zarr") for pattern in job.inputs.values()):
        return False
    keep, also = config.extraction["keep"], set(job.reads_too) & set(config.taps(dataset))
    return keep is not None and not {*settings.required_taps(), *also} <= set(keep)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Turn settings into words of a command, which reads them back as they are."""
    words = []
    for key, value in settings.items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        texts = ["null" if v is None else str(v) for v in values]
        # A text that looks like a flag goes with its flag in one word.
        dashed = any(text.startswith("-") for text in texts)
        words += [f"{flag}={text}" for text in texts] if dashed else [flag, *texts]
    return words


@dataclass(frozen=True)
class Step:
    """A kind of job as a rule: for some datasets, of one model or of all.

    Attributes
    ----------
    config
        The whole config.
    analysis, job
        What it does.
    datasets
        Of which datasets.
    of_all
        Whether one job is of all models.
    name
        Of the rule.
    in_storage
        Where a store stands that jobs know by its path.
    """

    config: Config
    analysis: Analysis
    job: Job
    datasets: tuple[str, ...]
    of_all: bool
    name: str
    in_storage: Callable[[str], str]

    temporary: ClassVar[bool] = False
    """Whether what it writes goes when it was used."""

    @cached_property
    def settings(self) -> Settings:
        """The analysis' settings."""
        return self.config.analyses[self.analysis.name]

    @property
    def joined(self) -> str:
        """What else its results depend on, beside its command and its inputs."""
        return ""

    @property
    def constraints(self) -> dict[str, str]:
        """Patterns of the wildcards."""
        models = {} if self.of_all else {"model": _any_of(m.id for m in self.config.models)}
        return {"dataset": _any_of(self.datasets), **models}

    def inputs(self, wildcards: Wildcards) -> list[str]:
        """Return the files that it waits for."""
        waits = [self.analysis.module.as_posix()] if self.analysis.module else []
        for model in self._models(wildcards):
            for pattern in self._of_each_kind(self.job.inputs.values()):
                if pattern != ROOT:
                    waits += self._waits_for(self._path(pattern, wildcards.dataset, model))
        waits += [
            f"{self.config.weights.as_posix()}/{model}.json"
            for model in self.pushes(wildcards)
            if self.config.model(model).is_fetched
        ]
        return list(dict.fromkeys(waits))

    def pushes(self, wildcards: Wildcards) -> list[str]:
        """Return the models that it pushes images through."""
        return self._models(wildcards) if self.analysis.settings.own_pass else []

    @property
    def outputs(self) -> dict[str, list[str]]:
        """The files that it writes, with wildcards."""
        named = {key: [pattern] for key, pattern in self._asked.items()}
        if self.job.beside:
            named["beside"] = list(self.job.beside)
        files = {
            key: self._with_wildcards(self._of_each_kind(patterns))
            for key, patterns in named.items()
        }
        return {key: paths for key, paths in files.items() if paths}

    @property
    def how(self) -> str:
        """Flags by the shell's variables: what they say changes no results, and runs nothing."""
        if self.analysis.settings.own_pass:
            return '$VITFEAT_HOW --weights-folder "$VITFEAT_WEIGHTS"'
        return "--device $VITFEAT_DEVICE" if self.gpu else ""

    @property
    def gpu(self) -> bool:
        """Whether a job uses a GPU."""
        uses = self.job.gpu
        return uses if isinstance(uses, bool) else uses(self.config)

    @property
    def log(self) -> str:
        """The log, with wildcards."""
        return f"{self._results}/logs/{self._stem}.log"

    @property
    def benchmark(self) -> str:
        """What Snakemake measures, with wildcards."""
        return f"{self._results}/benchmarks/{self._stem}.tsv"

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        models = self._models(wildcards)
        model = _MODEL if self.of_all else models[0]
        first, *others = (
            (key, self._place(pattern, wildcards.dataset, model))
            for key, pattern in {**self.job.inputs, **self._asked}.items()
        )
        paths = [first[1], *(f"--{key.replace('_', '-')}={path}" for key, path in others)]
        words = [self.job.name, *paths, *flags(self.settings.used(self.job.settings))]
        if self.analysis.settings.own_pass:
            entries = {m: entry_fields(self.config.model(m)) for m in models}
            words += ["--entries", json.dumps(entries, sort_keys=True)]
            numbers = pass_settings(self.config, wildcards.dataset)
            words += ["--extraction", json.dumps(numbers, sort_keys=True)]
        if self.job.together:
            words += ["--models", shown_models(self.config)]
        elif self.of_all:
            words += ["--models", *models]
        if self.job.label:
            words += flags({"labels": [self.config.model(model).label for model in models]})
        return shlex.join(words)

    def scope(self, wildcards: Wildcards, output: Sequence[str]) -> str:
        """Return of which kinds of tokens a job is.

        Snakemake does not compare params that depend on outputs: which of them are there says
        whether a kind is to be made.
        """
        return shlex.join(flags({"tokens": self._tokens})) if self.job.of_tokens else ""

    @property
    def group(self) -> str | None:
        """What a job shares submissions to a cluster with, where profiles cannot name its rule."""
        return None

    def threads(self, wildcards: Wildcards) -> int:
        """Return how many threads it can use."""
        return max(self.job.threads(study) for study in self._studies(wildcards))

    def memory_mb(self, wildcards: Wildcards, threads: int) -> int:
        """Return MiB that it needs."""
        return max(self.job.needs(s).memory_mb for s in self._studies(wildcards, threads))

    def minutes(self, wildcards: Wildcards, threads: int) -> int:
        """Return minutes that it needs; those to start are counted once."""
        return max(self.job.needs(s).minutes for s in self._studies(wildcards, threads))

    def targets(self) -> Iterator[str]:
        """Yield the outputs of all datasets and models."""
        for dataset in self.datasets:
            for path in (path for paths in self.outputs.values() for path in paths):
                placed = path.replace("{dataset}", dataset)
                for model in self.config.models if _MODEL in path else [None]:
                    yield placed if model is None else placed.replace(_MODEL, model.id)

    @cached_property
    def _asked(self) -> dict[str, str]:
        """The outputs that the config asks for."""
        optional = self.job.optional
        return {
            key: pattern
            for key, pattern in self.job.outputs.items()
            if key not in optional or optional[key](self.config)
        }

    @property
    def _results(self) -> str:
        return self.config.results.as_posix()

    @property
    def _stem(self) -> str:
        return f"{self.job.name}/{{dataset}}" + ("" if self.of_all else "/{model}")

    def _models(self, wildcards: Wildcards) -> list[str]:
        # In an order that changes no params where that of the config makes no difference.
        return sorted(m.id for m in self.config.models) if self.of_all else [wildcards.model]

    def _studies(self, wildcards: Wildcards, threads: int = 1) -> Iterator[Study]:
        for model in self._models(wildcards):
            yield Study(self.config, self.analysis.name, wildcards.dataset, model, threads=threads)

    def _path(self, pattern: str, dataset: str, model: str) -> str:
        if pattern == ROOT:
            return self.config.datasets[dataset].root.as_posix()
        train = getattr(self.settings, "train", {}).get(dataset, "")
        path = pattern.format(
            dataset=dataset,
            model=model,
            train=train,
            annotations=self.analysis.annotations,
            layers=_LAYERS,
            tokens=_TOKENS,
            other=_OTHER,
        )
        return f"{self._results}/{path}"

    def _place(self, pattern: str, dataset: str, model: str) -> str:
        path = self._path(pattern, dataset, model)
        return self.in_storage(path) if path.endswith(".zarr") else path

    def _waits_for(self, path: str) -> list[str]:
        """Return what says that a file is there: of a store its manifest, which is written last."""
        if not path.endswith(".zarr"):
            return [path]
        stem = path.removesuffix(".zarr")
        dropped = goes(self.config, self.settings, self.job, PurePosixPath(path).parent.name)
        return [f"{stem}.json", *([f"{stem}.transient"] if dropped else [])]

    @property
    def _tokens(self) -> tuple[str, ...]:
        """The kinds of tokens."""
        kinds: tuple[str, ...] = getattr(self.settings, "tokens", ())
        return kinds

    def _of_each_kind(self, patterns: Iterable[str]) -> list[str]:
        """Return patterns of paths once for each kind of tokens that they are of."""
        return [
            pattern.replace(_TOKENS, kind)
            for pattern in patterns
            for kind in (self._tokens if _TOKENS in pattern else [""])
        ]

    def _with_wildcards(self, patterns: Sequence[str]) -> list[str]:
        models = [m.id for m in self.config.models] if self.of_all else [_MODEL]
        return [
            f"{self._results}/{path}"
            for pattern in patterns
            for model in models
            for path in _written(pattern.replace(_MODEL, model))
        ]


@dataclass(frozen=True)
class PairStep(Step):
    """A job that compares models two by two as a rule.

    Attributes
    ----------
    of
        The model that is compared with itself and with those before it; None compares all.
    """

    of: str | None = None

    @property
    def group(self) -> str | None:
        """What a job shares submissions to a cluster with: all pairs of an analysis."""
        return self.job.name

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        whole = super().command(wildcards)
        return whole if self.of is None else shlex.join([*shlex.split(whole), "--of", self.of])

    def minutes(self, wildcards: Wildcards, threads: int) -> int:
        """Return minutes that it needs: pairs come one after the other."""
        each = (self.job.needs(study).minutes for study in self._studies(wildcards, threads))
        return minutes_in_turn(m for m in each for _ in self._tokens)

    @property
    def _stem(self) -> str:
        return f"{self.job.name}/{{dataset}}" + (f"/{self.of}" if self.of else "")

    @cached_property
    def _compared(self) -> list[str]:
        """The models."""
        ids = [model.id for model in self.config.models]
        return sorted(ids if self.of is None else ids[: ids.index(self.of) + 1])

    def _models(self, wildcards: Wildcards) -> list[str]:
        return self._compared

    def _studies(self, wildcards: Wildcards, threads: int = 1) -> Iterator[Study]:
        for pair in pairs_of(self._compared, self.of):
            yield Study(self.config, self.analysis.name, wildcards.dataset, *pair, threads=threads)

    def _with_wildcards(self, patterns: Sequence[str]) -> list[str]:
        return [
            f"{self._results}/{path}"
            for pattern in patterns
            for model, other in pairs_of(self._compared, self.of)
            for path in _written(pattern.replace(_MODEL, model).replace(_OTHER, other))
        ]


class PairWildcards(Wildcards, Protocol):
    """Which tokens and which two models a job is of."""

    @property
    def tokens(self) -> str:
        """The kind of tokens."""

    @property
    def other(self) -> str:
        """The second model."""


@dataclass(frozen=True)
class RequestedStep(Step):
    """A job of two models that nothing asks for, as a rule."""

    @property
    def constraints(self) -> dict[str, str]:
        """Patterns of the wildcards."""
        models = _any_of(m.id for m in self.config.models)
        some = {"dataset": _any_of(self.datasets), "tokens": _any_of(self._tokens)}
        return {**some, "model": models, "other": models}

    def inputs(self, wildcards: PairWildcards) -> list[str]:  # type: ignore[override]
        """Return the files that it waits for, whose names have the models in order."""
        pair = sorted((wildcards.model, wildcards.other))
        return [self._of_pair(pattern, wildcards, *pair) for pattern in self.job.inputs.values()]

    @property
    def outputs(self) -> dict[str, list[str]]:
        """The files that it writes, with wildcards."""
        return {
            key: [f"{self._results}/{path}" for path in _written(pattern)]
            for key, pattern in self.job.outputs.items()
        }

    def command(self, wildcards: PairWildcards) -> str:  # type: ignore[override]
        """Return what ``vitfeat run`` is told."""
        pair = (wildcards.model, wildcards.other)
        outputs = (
            f"--{key}={self._of_pair(pattern, wildcards, *pair)}"
            for key, pattern in self.job.outputs.items()
        )
        words = [self.job.name, *self.inputs(wildcards), *outputs]
        words += flags(self.settings.used(self.job.settings))
        return shlex.join([*words, "--models", shown_models(self.config, pair)])

    def scope(self, wildcards: Wildcards, output: Sequence[str]) -> str:
        """Return nothing: it is of one kind of tokens."""
        return ""

    def targets(self) -> Iterator[str]:
        """Yield nothing."""
        return iter(())

    @property
    def _stem(self) -> str:
        return f"{self.job.name}/{{dataset}}/{{tokens}}/{{model}}--{{other}}"

    def _of_pair(self, pattern: str, wildcards: PairWildcards, model: str, other: str) -> str:
        path = self._path(pattern, wildcards.dataset, model)
        return path.replace(_TOKENS, wildcards.tokens).replace(_OTHER, other)


@dataclass(frozen=True)
class LayersStep(Step):
    """A kind of job as a rule of some layers of a model; its table is joined with the others'."""

    temporary: ClassVar[bool] = True

    @property
    def constraints(self) -> dict[str, str]:
        """Patterns of the wildcards."""
        return {**super().constraints, "layers": r"\d+(-\d+)?"}

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        layers = layer_groups(self.config, wildcards.model)[wildcards.layers]
        words = super().command(wildcards).replace(_LAYERS, wildcards.layers)
        return shlex.join([*shlex.split(words), *flags({"layers": layers})])

    def targets(self) -> Iterator[str]:
        """Yield nothing: what it writes goes."""
        yield from ()

    @property
    def _stem(self) -> str:
        return f"{super()._stem}/layers-{_LAYERS}"

    def _studies(self, wildcards: Wildcards, threads: int = 1) -> Iterator[Study]:
        layers = layer_groups(self.config, wildcards.model)[wildcards.layers]
        for study in super()._studies(wildcards, threads):
            yield replace(study, layers=len(layers))


@dataclass(frozen=True)
class JoinStep(Step):
    """What joins the tables of a model's layers, as a rule."""

    @property
    def joined(self) -> str:
        """The settings of the tables, which are gone by the time that one changes."""
        return shlex.join(flags(self.settings.used(self.job.settings)))

    def inputs(self, wildcards: Wildcards) -> list[str]:
        """Return the files that it waits for: the tables, and what they are made from."""
        return [*self._tables(wildcards), *super().inputs(wildcards)]

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        (store, *_), (out,) = self.job.inputs.values(), self.job.outputs.values()
        dataset, model = wildcards.dataset, wildcards.model
        words = ["join_layers", *self._tables(wildcards)]
        words += [f"--store={self._place(store, dataset, model)}"]
        return shlex.join([*words, f"--out={self._path(out, dataset, model)}"])

    def _tables(self, wildcards: Wildcards) -> list[str]:
        (out,) = self.job.outputs.values()
        path = self._path(_of_layers(out), wildcards.dataset, wildcards.model)
        groups = layer_groups(self.config, wildcards.model)
        return [path.replace(_LAYERS, layers) for layers in groups]


def layer_groups(config: Config, model: str) -> dict[str, list[int]]:
    """Return the layers of each of the jobs that share a model's, by the first and the last.

    How many a model has is guessed from its name.
    """
    layers = select_layers(guess_shape(config.model(model)).depth, config.extraction["layers"])
    n_jobs = ceil(len(layers) / LAYERS_A_JOB)
    cuts = [len(layers) * number // n_jobs for number in range(n_jobs + 1)]
    groups = [layers[start:stop] for start, stop in pairwise(cuts)]
    return {"-".join(map(str, dict.fromkeys((g[0], g[-1])))): g for g in groups}


def steps(config: Config, in_storage: Callable[[str], str] = str) -> list[Step]:
    """Return the rules of all analyses that a config asks for."""
    small = {name for name in config.datasets if is_small(config, name)}
    return [
        step
        for analysis in analyses().values()
        for job in analysis.jobs
        for name, asked in _asked(config, analysis, job)
        for step in _steps(asked, analysis, job, name, small, in_storage)
    ]


def _asked(config: Config, analysis: Analysis, job: Job) -> Iterator[tuple[str, Config]]:
    """Yield names of rules of a job, and the config that each follows.

    A job that is shared is of all that is asked of it. Kinds of tokens that go after use are made
    apart from others: a further kind of those that stay needs no extraction.
    """
    if not job.shared:
        if analysis.name in config.analyses:
            yield job.name, config
        return
    own = config.analyses.get(analysis.name) or analysis.settings()
    datasets: dict[tuple[str, ...], list[str]] = {}
    for dataset in config.datasets:
        kinds = _kinds_read(config, job, dataset)
        each = {kind: own.model_copy(update={"tokens": (kind,)}) for kind in kinds}
        stay = [kind for kind in kinds if not goes(config, each[kind], job, dataset)]
        for some in (stay, [kind for kind in kinds if kind not in stay]):
            if some:
                datasets.setdefault(tuple(some), []).append(dataset)
    for tokens, alike in datasets.items():
        settings = own.model_copy(update={"datasets": tuple(alike), "tokens": tokens})
        name = job.name if len(datasets) == 1 else "_".join((job.name, *tokens))
        yield name, replace(config, analyses={**config.analyses, analysis.name: settings})


def _kinds_read(config: Config, job: Job, dataset: str) -> list[str]:
    """Return the kinds of tokens that analyses read a job's outputs for."""
    kinds: dict[str, None] = {}
    for name, settings in config.analyses.items():
        reads = {pattern for reader in analyses()[name].jobs for pattern in reader.inputs.values()}
        if dataset in settings.datasets and reads & set(job.outputs.values()):
            kinds |= dict.fromkeys(getattr(settings, "tokens", ()))
    return sorted(kinds, key=list(TOKEN_ARRAYS).index)


def _steps(
    config: Config,
    analysis: Analysis,
    job: Job,
    name: str,
    small: AbstractSet[str],
    in_storage: Callable[[str], str],
) -> Iterator[Step]:
    """Yield the rules of a job: of small datasets, and of others."""
    settings = config.analyses[analysis.name]
    datasets, train = settings.datasets, getattr(settings, "train", {})
    little = {d for d in datasets if {d, train.get(d, d)} <= small}
    # A further model must not make anew what was dropped of the others.
    some = {d for d in little if not goes(config, settings, job, d)}
    of_all = tuple(d for d in datasets if job.together or d in some)
    single = tuple(d for d in datasets if d not in of_all)
    if job.on_request:
        yield RequestedStep(config, analysis, job, datasets, False, name, in_storage)
        return
    if job.of_pairs:
        for model in config.models if single else ():
            rule = f"{name}_{model.id}"
            yield PairStep(config, analysis, job, single, True, rule, in_storage, model.id)
    elif single and job.by_layers and getattr(settings, "layer_jobs", False):
        part = replace(job, outputs={k: _of_layers(p) for k, p in job.outputs.items()})
        join = replace(job, needs=_joining, threads=one_thread, gpu=False)
        for step, made, end in ((LayersStep, part, "layers"), (JoinStep, join, "join")):
            yield step(config, analysis, made, single, False, f"{name}_{end}", in_storage)
    elif single:
        yield Step(config, analysis, job, single, False, name, in_storage)
    if of_all:
        rule = name if job.together else f"{name}_of_all"
        kind = PairStep if job.of_pairs else Step
        yield kind(config, analysis, job, of_all, True, rule, in_storage)


def _of_layers(table: str) -> str:
    """Return where the table of some layers stands until they are joined."""
    return f"{table.removesuffix('.csv')}/layers-{_LAYERS}.csv"


def _joining(_: Study) -> Needs:
    return Needs(500, 10)


@dataclass(frozen=True)
class FigureStep:
    """The figures across models of an analysis, as a rule.

    Attributes
    ----------
    config
        The whole config.
    analysis
        Whose figures they are.
    """

    config: Config
    analysis: Analysis

    @property
    def name(self) -> str:
        """Of the rule."""
        return f"{self.analysis.name}_figures"

    @property
    def folder(self) -> str:
        """Where tables and figures are."""
        return f"{self.config.results.as_posix()}/{self.analysis.name}"

    @property
    def inputs(self) -> list[str]:
        """The tables of all datasets and models."""
        settings = self.config.analyses[self.analysis.name]
        return [
            f"{self.folder}/{dataset}/{model.id}{ending}"
            for dataset in settings.datasets
            for model in self.config.models
            for ending in self._across.tables(settings)
        ]

    @property
    def outputs(self) -> list[str]:
        """Every figure: PNG, PDF, and the numbers that it shows."""
        settings = self.config.analyses[self.analysis.name]
        figures = [
            f"{self.folder}/{dataset}/sets/{chosen}/{name}.png"
            for dataset in settings.datasets
            for chosen in model_sets(self.config)
            for name in self._across.names(settings)
        ]
        return [path for png in (*figures, f"{self.folder}/all.png") for path in _written(png)]

    def command(self, _: Wildcards) -> str:
        """Return what ``vitfeat`` is told."""
        settings = self.config.analyses[self.analysis.name]
        words = ["draw", self.analysis.name, self.folder]
        words += flags(settings.used(self._across.settings))
        words += [*flags({"datasets": settings.datasets}), *_shown(self.config)]
        return shlex.join(words)

    @property
    def _across(self) -> Across:
        assert isinstance(self.analysis.across, Across)
        return self.analysis.across


@dataclass(frozen=True)
class PairFigureStep(FigureStep):
    """The figures of an analysis that compares models two by two, as a rule."""

    @property
    def inputs(self) -> list[str]:
        """The tables of all datasets and pairs."""
        settings: Any = self.config.analyses[self.analysis.name]
        ids = [model.id for model in self.config.models]
        tables = pair_tables(Path(self.folder), settings.datasets, settings.tokens, ids)
        return [table.path.as_posix() for some in tables.values() for table in some]

    @property
    def outputs(self) -> list[str]:
        """Every figure, of all models and of each set."""
        names = self._across.names(self.config.analyses[self.analysis.name])
        folders = [self.folder, *(f"{self.folder}/sets/{chosen}" for chosen in self.config.sets)]
        return [path for f in folders for name in names for path in _written(f"{f}/{name}.png")]

    @property
    def _across(self) -> AcrossPairs:  # type: ignore[override]
        assert isinstance(self.analysis.across, AcrossPairs)
        return self.analysis.across


@dataclass(frozen=True)
class CollectStep:
    """The tables of all scored analyses together, and their figures, as a rule.

    Attributes
    ----------
    config
        The whole config.
    """

    config: Config
    name = "collect"

    @property
    def tables(self) -> list[str]:
        """Scored analyses with their datasets, in the order of figures."""
        return [
            f"{name}/{dataset}"
            for name, settings in self.config.analyses.items()
            if name in scored()
            for dataset in settings.datasets
        ]

    @property
    def inputs(self) -> list[str]:
        """The tables of all analyses, datasets and models."""
        return [
            f"{self._results}/{table}/{model.id}.csv"
            for table in self.tables
            for model in self.config.models
        ]

    @property
    def outputs(self) -> list[str]:
        """Both tables, and every figure: PNG, PDF, and the numbers that it shows."""
        figures = [
            f"sets/{chosen}/{name}.{kind}"
            for chosen in model_sets(self.config)
            for name in TOGETHER
            for kind in ("png", "pdf", "csv")
        ]
        return [f"{self._results}/tasks/{path}" for path in ("all.csv", "best.csv", *figures)]

    def command(self, _: Wildcards) -> str:
        """Return what ``vitfeat`` is told."""
        tables = flags({"tables": self.tables})
        return shlex.join(["collect", self._results, *tables, *_shown(self.config)])

    @property
    def _results(self) -> str:
        return self.config.results.as_posix()


def figure_steps(config: Config) -> list[FigureStep | CollectStep]:
    """Return the rules of figures across models: of each analysis, and of all scored ones."""
    asked = [analyses()[name] for name in config.analyses]
    figures = [
        PairFigureStep(config, analysis)
        if isinstance(analysis.across, AcrossPairs)
        else FigureStep(config, analysis)
        for analysis in asked
        if analysis.across is not None
    ]
    collect = CollectStep(config)
    return [*figures, collect] if collect.tables else [*figures]


def model_sets(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the choices of models that figures are drawn of: ``all``, and the config's."""
    return {"all": tuple(m.id for m in config.models), **config.sets}


def shown_models(config: Config, ids: Iterable[str] | None = None) -> str:
    """Return models as JSON, as figures know them: all in the order of the config, or some."""
    chosen = config.models if ids is None else [config.model(one) for one in ids]
    return json.dumps(
        [{"id": m.id, "label": m.label, "family": m.family, "size": size_name(m)} for m in chosen]
    )


def _shown(config: Config) -> list[str]:
    """Return the flags that say which models are shown, and which choices of them."""
    sets = ["--sets", json.dumps(config.sets)] if config.sets else []
    return ["--models", shown_models(config), *sets]


def _written(path: str) -> list[str]:
    """Return the files that stand there when an output is whole; a store has its manifest."""
    if path.endswith(".zarr"):
        return []
    if not path.endswith(".png"):
        return [path]
    return [f"{path.removesuffix('png')}{kind}" for kind in ("png", "pdf", "csv")]


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)
