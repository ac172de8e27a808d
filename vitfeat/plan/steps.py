"""A job of an analysis as the workflow's rules have it: inputs, outputs, command, needs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import ClassVar, Protocol

from vitfeat.analyses.base import ROOT, Analysis, Job
from vitfeat.analyses.needs import minutes_in_turn
from vitfeat.analyses.settings import Settings
from vitfeat.config.config import Config
from vitfeat.plan.extraction import entry_fields, pass_settings
from vitfeat.plan.figures import shown_models
from vitfeat.plan.study import Study
from vitfeat.plan.words import any_of, figure_flags, flags, setting_flags, written

MODEL, OTHER, TOKENS, LAYERS = "{model}", "{other}", "{tokens}", "{layers}"
"""What stands in paths for models, kinds of tokens and layers."""


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
    keep, also = config.extraction.keep, set(job.reads_too) & set(config.taps(dataset))
    return keep is not None and not {*settings.required_taps(), *also} <= set(keep)


@dataclass(frozen=True)
class Step:
    """A kind of job as a rule: for some datasets, of one model or of all.

    ``in_storage`` says where a store stands that jobs know by its path.
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
        models = {} if self.of_all else {"model": any_of(m.id for m in self.config.models)}
        return {"dataset": any_of(self.datasets), **models}

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
        model = MODEL if self.of_all else models[0]
        first, *others = (
            (key, self._place(pattern, wildcards.dataset, model))
            for key, pattern in {**self.job.inputs, **self._asked}.items()
        )
        paths = [first[1], *(f"--{key.replace('_', '-')}={path}" for key, path in others)]
        words = [self.job.name, *paths, *setting_flags(self.job.used(self.settings))]
        if self.analysis.settings.own_pass:
            entries = {m: entry_fields(self.config.model(m)) for m in models}
            words += ["--entries", json.dumps(entries, sort_keys=True)]
            numbers = pass_settings(self.config, wildcards.dataset)
            words += ["--extraction", json.dumps(numbers, sort_keys=True)]
        if self.job.together:
            words += ["--models", shown_models(self.config, models)]
        elif self.of_all:
            words += ["--models", *models]
        if self.job.label:
            words += flags({"labels": [self.config.model(model).label for model in models]})
        if self.job.draws:
            words += figure_flags(self.config.figures)
        return shlex.join(words)

    def scope(self, wildcards: Wildcards, output: Sequence[str]) -> str:
        """Return of which kinds of tokens a job is.

        Snakemake does not compare params that depend on outputs: which of them are there says
        whether a kind is to be made.
        """
        return shlex.join(flags({"tokens": self._tokens})) if self.job.of_tokens else ""

    @property
    def group(self) -> str | None:
        """What a job shares submissions to a cluster with; None where it may take hours.

        Of each model what a GPU reads of its stores, and what CPUs do; all figures; and all jobs
        on small stores.
        """
        if self.job.together:
            return "figures"
        if self.of_all:
            return "small"
        if self.job.alone:
            return None
        return "gram-{model}" if self.gpu else "tables-{model}"

    def threads(self, wildcards: Wildcards) -> int:
        """Return how many threads it can use."""
        return max(self.job.threads(study) for study in self._studies(wildcards))

    def memory_mb(self, wildcards: Wildcards, threads: int) -> int:
        """Return MiB that it needs."""
        return max(self.job.needs(s).memory_mb for s in self._studies(wildcards, threads))

    def minutes(self, wildcards: Wildcards, threads: int) -> int:
        """Return minutes that it needs: models come one after the other behind one start."""
        each = [self.job.needs(study).minutes for study in self._studies(wildcards, threads)]
        return max(each) if self.job.together else minutes_in_turn(each)

    def targets(self) -> Iterator[str]:
        """Yield the outputs of all datasets and models."""
        for dataset in self.datasets:
            for path in (path for paths in self.outputs.values() for path in paths):
                placed = path.replace("{dataset}", dataset)
                for model in self.config.models if MODEL in path else [None]:
                    yield placed if model is None else placed.replace(MODEL, model.id)

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
            layers=LAYERS,
            tokens=TOKENS,
            other=OTHER,
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
        place = PurePosixPath(path)
        dropped = goes(self.config, self.settings, self.job, place.parent.name)
        dropped = dropped and not self.config.model(place.stem).is_imported
        return [f"{stem}.json", *([f"{stem}.transient"] if dropped else [])]

    @property
    def _tokens(self) -> tuple[str, ...]:
        kinds: tuple[str, ...] = getattr(self.settings, "tokens", ())
        return kinds

    def _of_each_kind(self, patterns: Iterable[str]) -> list[str]:
        """Return patterns of paths once for each kind of tokens that they are of."""
        return [
            pattern.replace(TOKENS, kind)
            for pattern in patterns
            for kind in (self._tokens if TOKENS in pattern else [""])
        ]

    def _with_wildcards(self, patterns: Sequence[str]) -> list[str]:
        models = [m.id for m in self.config.models] if self.of_all else [MODEL]
        return [
            f"{self._results}/{path}"
            for pattern in patterns
            for model in models
            for path in written(pattern.replace(MODEL, model), self.config.figures)
        ]
