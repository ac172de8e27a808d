"""Which rules a config asks for: of analyses' jobs, and of figures across models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from vitfeat.analyses.base import AcrossPairs, Analysis, Job, one_thread
from vitfeat.analyses.registry import analyses
from vitfeat.config.config import Config
from vitfeat.config.imported import of_analysis
from vitfeat.plan.figures import CollectStep, FigureStep, PairFigureStep
from vitfeat.plan.layers import JoinStep, LayersStep, joining, of_layers
from vitfeat.plan.pairs import PairStep, RequestedStep
from vitfeat.plan.small import is_small
from vitfeat.plan.steps import Step, goes
from vitfeat.store.layout import TOKEN_ARRAYS


def steps(config: Config, in_storage: Callable[[str], str] = str) -> list[Step]:
    """Return the rules of all analyses that a config asks for."""
    small = {name for name in config.datasets if is_small(config, name)}
    return [
        step
        for analysis in analyses().values()
        if (mine := of_analysis(config, analysis)).models
        for job in analysis.jobs
        for name, asked in _asked(mine, analysis, job)
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
        part = replace(job, outputs={k: of_layers(p) for k, p in job.outputs.items()})
        join = replace(job, needs=joining, threads=one_thread, gpu=False)
        for step, made, end in ((LayersStep, part, "layers"), (JoinStep, join, "join")):
            yield step(config, analysis, made, single, False, f"{name}_{end}", in_storage)
    elif single:
        yield Step(config, analysis, job, single, False, name, in_storage)
    if of_all:
        rule = name if job.together else f"{name}_of_all"
        kind = PairStep if job.of_pairs else Step
        yield kind(config, analysis, job, of_all, True, rule, in_storage)


def figure_steps(config: Config) -> list[FigureStep | CollectStep]:
    """Return the rules of figures across models: of each analysis, and of all scored ones."""
    asked = [analyses()[name] for name in config.analyses]
    figures = [
        PairFigureStep(mine, analysis)
        if isinstance(analysis.across, AcrossPairs)
        else FigureStep(mine, analysis)
        for analysis in asked
        if analysis.across is not None and (mine := of_analysis(config, analysis)).models
    ]
    collect = CollectStep(config)
    return [*figures, collect] if collect.tables else [*figures]
