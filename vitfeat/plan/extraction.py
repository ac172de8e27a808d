"""Extractions as the workflow's rules have them: commands, jobs, needs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from vitfeat.analyses.needs import minutes_in_turn
from vitfeat.analyses.regions.settings import RegionSettings
from vitfeat.config.config import Config
from vitfeat.models.entry import ModelEntry
from vitfeat.models.shapes import guess_shape
from vitfeat.plan.disk import dataset_size, rows_of
from vitfeat.plan.needs import (
    extraction_jobs,
    extraction_memory_mb,
    extraction_minutes,
    sealing_minutes,
)
from vitfeat.plan.small import extracted_together
from vitfeat.plan.study import UNKNOWN_SIZE, enlarged
from vitfeat.plan.words import any_of, flags
from vitfeat.store.provenance import differences


class Wildcards(Protocol):
    """Which dataset a job is of; where it is of one, which ``model``; and of how many ``parts``."""

    @property
    def dataset(self) -> str:
        """The dataset."""


def entry_fields(model: ModelEntry) -> dict[str, Any]:
    """Return the fields of a model that decide a store's numbers.

    How a model is shown is for the figures alone; but a weight file is held to the family.
    """
    from_file = model.is_fetched or model.checkpoint
    shown = ("id", "label") if from_file else ("id", "family", "label")
    return {k: v for k, v in model.to_mapping().items() if k not in shown and v not in (None, {})}


_NUMBERS = {"layers", "dtype", "keep_bits", "precision"}


def pass_settings(config: Config, dataset: str) -> dict[str, Any]:
    """Return what decides a store's numbers, beside the model, the images and what is stored."""
    view = config.view(dataset).to_mapping()
    numbers: dict[str, Any] = {"view": None if view == {"kind": "square"} else view}
    numbers |= config.extraction.model_dump(mode="json", include=_NUMBERS)
    return {key: value for key, value in numbers.items() if value is not None}


class Finished(NamedTuple):
    """How a finished store was made: the command, and how many jobs shared it."""

    command: str
    jobs: int


def holds(made: str, asked: str) -> bool:
    """Return whether stores that one command made have all that another one asks for."""
    return not differences(_request(made), _request(asked))


def _request(command: str) -> dict[str, Any]:
    """Return what a command asks for, in the form of a store's request."""
    words, key = shlex.split(command), "models"
    told: dict[str, list[str]] = {key: []}
    for word in words:
        flag, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        key = flag.removeprefix("--") or key
        told.setdefault(key, []).extend([value] if value else [])
    regions = {flag: told.pop(flag) for flag in ("regions", "masks") if flag in told}
    limits = json.loads(told.pop("limits", ["{}"])[0])
    return {**told, "regions": regions, "limits": limits}


@dataclass(frozen=True)
class Extractions:
    """The extractions of a config, whose models are those that images are pushed through."""

    config: Config
    on_gpu: bool = False  # whether each job has a GPU
    # Tells of a dataset and models how their stores were made, if they are there and of today's
    # images and weights. Those that hold all that is asked are planned as they were made: with
    # another command or number of jobs, Snakemake would run their extraction again.
    finished: Callable[..., Finished | None] = lambda *_: None

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that have stores."""
        asked = self.config.datasets if self.config.models else ()
        return tuple(name for name in asked if self.config.taps(name))

    @cached_property
    def together(self) -> frozenset[str]:
        """Those of which one job extracts all models."""
        return frozenset(name for name in self.datasets if extracted_together(self.config, name))

    def names(self, *, together: bool) -> str:
        """Return the pattern of the datasets whose jobs are of all models, or of the others."""
        return any_of(name for name in self.datasets if (name in self.together) == together)

    def manifest(self, dataset: str, model: str) -> str:
        """Return the path that says that a store is whole."""
        return f"{self.config.results.as_posix()}/features/{dataset}/{model}.json"

    def targets(self) -> list[str]:
        """Return the manifests of all stores."""
        return [self.manifest(d, m.id) for d in self.datasets for m in self.config.models]

    def models(self, wildcards: Wildcards | None) -> list[ModelEntry]:
        """Return the models of a job: one, or all in an order that changes no params."""
        if (one := getattr(wildcards, "model", None)) is not None:
            return [self.config.model(one)]
        return sorted(self.config.models, key=lambda model: model.id)

    def regions(self, wildcards: Wildcards) -> list[str]:
        """Return the table of regions where stores hold features of them."""
        pooled = "--regions" in shlex.split(self.command(wildcards))
        return [self._regions(wildcards.dataset)] if pooled else []

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat extract`` is told that decides the numbers of stores."""
        made = self._made(wildcards)
        return made.command if made else self._asked(wildcards)

    def _made(self, wildcards: Wildcards) -> Finished | None:
        """Return how finished stores were made that hold all that is asked."""
        made = self.finished(wildcards.dataset, *(m.id for m in self.models(wildcards)))
        return made if made and holds(made.command, self._asked(wildcards)) else None

    def _asked(self, wildcards: Wildcards) -> str:
        dataset, models = wildcards.dataset, self.models(wildcards)
        limits, taps = self.config.limits(dataset), self.config.taps(dataset)
        regions = self.config.settings(RegionSettings)
        numbers = pass_settings(self.config, dataset)
        if "view" in numbers:
            numbers["view"] = json.dumps(numbers["view"], sort_keys=True)
        settings = {
            "root": self.config.datasets[dataset].root.as_posix(),
            **numbers,
            "taps": taps,
            "limits": json.dumps(limits, sort_keys=True) if limits else None,
            "regions": self._regions(dataset) if "regions" in taps else None,
            "masks": regions.masks if "regions" in taps and regions else None,
            "keep": self.config.extraction.keep,
        }
        entries = (json.dumps(entry_fields(model), sort_keys=True) for model in models)
        told = {key: value for key, value in settings.items() if value is not None}
        return shlex.join(
            [*(m.id for m in models), *(f"--entry={entry}" for entry in entries), *flags(told)]
        )

    def jobs(self, wildcards: Wildcards) -> int:
        """Return how many jobs share an extraction."""
        if made := self._made(wildcards):
            return made.jobs
        asked: int | str = self.config.extraction.jobs
        if isinstance(asked, int):
            return asked
        if wildcards.dataset in self.together:
            return 1
        (model,) = self.models(wildcards)
        size = dataset_size(self.config, wildcards.dataset)
        n = size.images if size else UNKNOWN_SIZE
        return extraction_jobs(self._minutes(wildcards.dataset, model, n, self.threads(wildcards)))

    def parts(self, wildcards: Wildcards) -> list[str]:
        """Return what says that all jobs but the last are done, where there are several."""
        return [f"{self._parts_folder(wildcards)}/all"] if self.jobs(wildcards) > 1 else []

    def every_part(self, wildcards: Wildcards) -> list[str]:
        """Return what says that each of several jobs is done."""
        n, folder = self.jobs(wildcards), self._parts_folder(wildcards)
        return [f"{folder}/{number}-of-{n}" for number in range(1, n + 1)]

    def threads(self, wildcards: Wildcards) -> int:
        """Return one thread for tiny models, of which several jobs run side by side.

        Others take what a node usually has.
        """
        tiny = all(guess_shape(m).flops_per_image < 1e9 for m in self.models(wildcards))
        return 1 if tiny else 8

    def memory_mb(self, wildcards: Wildcards) -> int:
        """Return MiB of a job that pushes images."""
        dataset = wildcards.dataset
        return max(
            extraction_memory_mb(
                guess_shape(model),
                self.config.extraction.batch_size,
                self.config.taps(dataset),
                self.config.extraction.dtype,
                limits=self.config.limits(dataset),
                n_images=self._n_images(dataset),
                enlarged=enlarged(self.config, dataset, model.id),
            )
            for model in self.models(wildcards)
        )

    def minutes(self, wildcards: Wildcards, threads: int) -> int:
        """Return minutes of a job that pushes all images, or its part of them, or seals a store."""
        dataset, n = wildcards.dataset, self._n_images(wildcards.dataset)
        if (parts := getattr(wildcards, "parts", None)) is not None:
            n = -(-n // int(parts))
        elif self.seals(wildcards):
            return sealing_minutes(n)
        each = [self._minutes(dataset, m, n, threads) for m in self.models(wildcards)]
        return minutes_in_turn(each) if len(each) > 1 else each[0]

    def seals(self, wildcards: Wildcards) -> bool:
        """Return whether a job only seals what several have written."""
        return not hasattr(wildcards, "parts") and self.jobs(wildcards) > 1

    def _minutes(self, dataset: str, model: ModelEntry, n_images: int, threads: int) -> int:
        larger = enlarged(self.config, dataset, model.id)
        return extraction_minutes(guess_shape(model), n_images, threads, larger, gpu=self.on_gpu)

    def _n_images(self, dataset: str) -> int:
        if (n := rows_of(self.config.results / "datasets" / f"{dataset}.csv")) is not None:
            return n
        size = dataset_size(self.config, dataset) if dataset in self.together else None
        return size.images if size else UNKNOWN_SIZE

    def _regions(self, dataset: str) -> str:
        return f"{self.config.results.as_posix()}/datasets/regions/{dataset}.csv"

    def _parts_folder(self, wildcards: Wildcards) -> str:
        (model,) = self.models(wildcards)
        return f"{self.config.results.as_posix()}/features/{wildcards.dataset}/{model.id}.parts"
