"""Rules as they follow from what analyses say of themselves: commands, files, what runs anew."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import pytest

from vitfeat.analyses.base import ROOT, Analysis, Job
from vitfeat.analyses.knn import needs
from vitfeat.analyses.registry import analyses, scored
from vitfeat.analyses.scoring import TOGETHER
from vitfeat.analyses.settings import Settings
from vitfeat.cli import build_parser
from vitfeat.cli.settings_flags import given_settings
from vitfeat.config.config import Config
from vitfeat.config.parsing import parse_config
from vitfeat.plan import small
from vitfeat.plan.disk import Size
from vitfeat.plan.figures import model_sets
from vitfeat.plan.pairs import PairStep, RequestedStep
from vitfeat.plan.rules import figure_steps, steps
from vitfeat.plan.steps import Step
from vitfeat.plan.study import Study
from vitfeat.settings.schema import schema_of

JOBS = [
    pytest.param(analysis, job, id=job.name)
    for analysis in analyses().values()
    for job in analysis.jobs
]
WAYS = {
    *("settings", "label", "labels", "device", "threads", "max_bytes", "log", "models"),
    *("layers", "push"),
}
"""What functions of jobs are told beside paths, as base.py has it."""

EXTRACTED = {"residual": {"images"}}
"""Settings of analyses that the extraction has, so that a store is made anew."""

SIZES = {name: Size(20) for name in ("few", "train-few")}
SIZES |= {name: Size(10_000_000) for name in ("many", "train-many")}
MODELS = ("demo-dino", "demo-mae")
EMBEDDED = {"root": "embedded"}
DATASETS: dict[str, dict[str, Any]] = {
    "digits": {"layout": "digits", "split": "test"},
    "regions": {"layout": "coco", "split": "val2017", **EMBEDDED},
    "relevance": {"layout": "revisited", **EMBEDDED},
    "frames": {"layout": "davis", "split": "val", **EMBEDDED},
    "points": {"layout": "spair", "split": "test", **EMBEDDED},
}


DIGITS = ("digits-few", "digits-many")
DEPTHS = {"vit_base_patch16_224": 12, "vit_large_patch16_224": 24, "vit_huge_patch14_224": 32}


class At(NamedTuple):
    """The wildcards of a job."""

    dataset: str
    model: str
    layers: str = ""
    tokens: str = "cls"
    other: str = MODELS[0]


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config of every analysis, each on few images and on many."""
    sizes = {f"{name}-{size}": SIZES[size] for name in DATASETS for size in SIZES}
    monkeypatch.setattr(small, "dataset_size", lambda _, dataset: sizes[dataset])
    asked: dict[str, Any] = {}
    # What a config has first is no order of anything.
    for name, analysis in reversed(analyses().items()):
        kind = analysis.annotations or "digits"
        datasets = [f"{kind}-few", f"{kind}-many"]
        asked[name] = {"datasets": datasets}
        if "train" in analysis.settings.model_fields:
            asked[name]["train"] = {
                f"{kind}-{size}": f"{kind}-train-{size}" for size in ("few", "many")
            }
    return parse_config(
        {
            "results": "results",
            "models": list(MODELS),
            "datasets": {name: DATASETS[name.partition("-")[0]] for name in sizes},
            "analyses": asked,
            "figures": {"sets": {"one": [MODELS[1]]}},
        }
    )


def commands(config: Config) -> dict[tuple[str, ...], str]:
    """All commands, by rule, dataset and model."""
    of_jobs = {
        (step.job.name, dataset, step.name, model): step.command(At(dataset, model))
        for step in steps(config)
        for dataset in step.datasets
        for model in (("",) if step.of_all else [m.id for m in config.models])
    }
    of_figures = {(step.name,): step.command(At("", "")) for step in figure_steps(config)}
    return {**of_jobs, **of_figures}


def changed(config: Config, other: Config) -> set[str]:
    """Rules of which some command is another."""
    before, after = commands(config), commands(other)
    assert before.keys() == after.keys()
    return {key[0] for key in before if before[key] != after[key]}


def with_setting(config: Config, analysis: str, **values: Any) -> Config:
    given = config.analyses[analysis].model_dump() | values
    return replace(
        config, analyses={**config.analyses, analysis: analyses()[analysis].settings(**given)}
    )


def another(node: Mapping[str, Any], value: Any) -> Any:
    """Another value that a setting may have, by its schema."""
    kinds = node.get("type", "string")
    if "enum" in node:
        return next(item for item in node["enum"] if item != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return value[1:] if len(value) > 1 else (another(node["items"], value[0]),)
    if isinstance(value, str):
        return "middle" if "(" in node.get("pattern", "") and "middle" in node["pattern"] else 0
    if isinstance(value, float):
        return value / 2
    if "integer" in kinds:
        return 20 if value is None else value + 1
    return value / 2


def fields(analysis: Analysis) -> list[str]:
    """Settings beside the choice of datasets and of jobs."""
    others = ("datasets", "train", "layer_jobs")
    return [key for key in analysis.settings.model_fields if key not in others]


@pytest.mark.parametrize(("analysis", "job"), JOBS)
def test_the_function_of_a_job_takes_what_the_job_says(analysis: Analysis, job: Job) -> None:
    parameters = inspect.signature(analysis.function(job.call)).parameters
    sides = 2 if job.of_pairs and not job.together else 1
    n = sides * len(job.inputs) + len(job.outputs)
    paths = list(parameters.values())[:n]
    assert all(one.kind is one.POSITIONAL_OR_KEYWORD for one in paths)
    assert not WAYS & {one.name for one in paths}
    needed = [one for one in list(parameters.values())[n:] if one.default is one.empty]
    assert {one.name for one in needed} <= WAYS
    assert ("settings" in parameters) == bool(job.settings)
    assert bool({"device", "push"} & parameters.keys()) == bool(job.gpu)
    assert ("layers" in parameters) == job.by_layers
    assert not job.label or "label" in parameters or "labels" in parameters


@pytest.mark.parametrize(("analysis", "job"), JOBS)
def test_a_job_names_settings_and_outputs_that_there_are(analysis: Analysis, job: Job) -> None:
    assert set(job.settings) <= set(fields(analysis))
    assert job.first_of <= set(job.settings)
    assert job.folders <= set(job.outputs)
    assert not set(job.inputs) & set(job.outputs)
    places = {"dataset", "model", "tokens", *(["other"] if job.of_pairs else [])}
    for pattern in (*job.outputs.values(), *job.beside):
        assert set(re.findall("{(.*?)}", pattern)) <= places
    for pattern in job.inputs.values():
        known = {*places, "train", "annotations"}
        assert pattern == ROOT or set(re.findall("{(.*?)}", pattern)) <= known


@pytest.mark.parametrize("name", [name for name, a in analyses().items() if a.jobs])
def test_a_change_of_any_setting_runs_something(name: str) -> None:
    analysis = analyses()[name]
    used = {key for job in analysis.jobs for key in job.settings}
    used |= set(analysis.drawn_by)
    assert set(fields(analysis)) - used == EXTRACTED.get(name, set())


def test_names_of_jobs_rules_and_files_are_unique(config: Config) -> None:
    assert max(Counter(job.name for a in analyses().values() for job in a.jobs).values()) == 1
    rules = [*(step.name for step in steps(config)), *(s.name for s in figure_steps(config))]
    assert max(Counter(rules).values()) == 1
    files = chain(
        chain.from_iterable(step.targets() for step in steps(config)),
        chain.from_iterable(step.outputs for step in figure_steps(config)),
    )
    assert max(Counter(files).values()) == 1


def test_few_images_are_one_job_of_all_models_and_many_a_job_each(config: Config) -> None:
    for analysis in analyses().values():
        for job in (j for j in analysis.jobs if not (j.of_pairs or j.together)):
            mine = {s.of_all: s for s in steps(config) if s.job == job}
            kind = analysis.annotations or "digits"
            assert {of_all: step.datasets for of_all, step in mine.items()} == {
                True: (f"{kind}-few",),
                False: (f"{kind}-many",),
            }
            together, single = (mine[of_all] for of_all in (True, False))
            assert "model" not in together.constraints
            assert re.fullmatch(single.constraints["model"], MODELS[0])
            assert all("{model}" not in path for path in chain(*together.outputs.values()))
            assert all("{model}" in path for path in chain(*single.outputs.values()))


def test_a_dataset_that_nobody_has_listed_is_one_job_a_model(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "dataset_size", lambda _, __: None)
    steps_of_one = [s for s in steps(config) if not (s.job.together or s.job.of_pairs)]
    assert not any(step.of_all for step in steps_of_one)
    assert all(step.of for step in steps(config) if isinstance(step, PairStep))


def test_few_images_that_learn_from_many_are_one_job_a_model(config: Config) -> None:
    other = with_setting(config, "knn", train=dict.fromkeys(DIGITS, "digits-train-many"))
    assert [s.datasets for s in steps(other) if s.job.name == "knn"] == [DIGITS]


def test_what_reads_arrays_that_go_after_use_is_one_job_a_model(config: Config) -> None:
    """A job of all models would need those of every model again for a further one."""
    other = replace(config, extraction=config.extraction.but(keep=("cls",)))
    of_all = {step.job.name for step in steps(other) if step.of_all}
    assert "knn" not in of_all
    only_cls = with_setting(other, "knn", features=("cls",))
    assert {step.job.name for step in steps(only_cls) if step.of_all} - of_all == {"knn"}


def test_several_jobs_share_the_layers_of_a_model(config: Config) -> None:
    models = [config.models[0].but(id=n, source="timm", name=n) for n in DEPTHS]
    shared = with_setting(replace(config, models=tuple(models)), "knn", layer_jobs=True)
    rules = {step.name: step for step in steps(shared) if step.job.name == "knn"}
    some, join = rules["knn_layers"], rules["knn_join"]
    assert rules.keys() == {"knn_layers", "knn_join"}
    assert some.datasets == join.datasets == DIGITS
    (pattern,) = some.outputs["out"]
    assert some.temporary
    assert not join.temporary
    assert list(some.targets()) == []
    of_all = [f"results/knn/{dataset}/{name}.csv" for dataset in DIGITS for name in DEPTHS]
    assert list(join.targets()) == of_all
    for name, depth in DEPTHS.items():
        at = At("digits-many", name)
        tables = [path for path in join.inputs(at) if path.endswith(".csv")]
        words = shlex.split(join.command(at))
        assert words[: len(tables) + 1] == ["join_layers", *tables]
        told = []
        for table in tables:
            (layers,) = re.findall("layers-(.+).csv", table)
            part = at._replace(layers=layers)
            assert re.fullmatch(some.constraints["layers"], layers)
            assert pattern.format(**part._asdict()) == table
            words = shlex.split(some.command(part))
            assert f"--out={table}" in words
            told.append([int(word) for word in words[words.index("--layers") + 1 :]])
            # Each layer takes as long, beside the start.
            one = needs(Study(shared, "knn", "digits-many", name, layers=1)).minutes - 10
            assert some.minutes(part, 1) - 10 == pytest.approx(one * len(told[-1]), rel=0.02)
        assert [layer for layers in told for layer in layers] == list(range(depth))
        assert max(map(len, told)) <= 6
        assert max(map(len, told)) - min(map(len, told)) <= 1
        assert join.minutes(at, 1) == 10


def test_only_stored_layers_have_jobs(config: Config) -> None:
    stored = replace(config, extraction=config.extraction.but(layers=("first", 3, "last")))
    shared = with_setting(stored, "linear_probe", layer_jobs=True)
    (join,) = [step for step in steps(shared) if step.name == "linear_probe_join"]
    tables = [path for path in join.inputs(At("digits-many", MODELS[0])) if "layers" in path]
    assert tables == [f"results/linear_probe/digits-many/{MODELS[0]}/layers-0-5.csv"]


def test_settings_of_tables_that_are_gone_are_remembered(config: Config) -> None:
    """Else a change of one would run nothing: the command that joins says none."""
    shared = with_setting(config, "knn", layer_jobs=True)
    (join,) = [step for step in steps(shared) if step.name == "knn_join"]
    other = with_setting(shared, "knn", temperature=0.5)
    (changed_join,) = [step for step in steps(other) if step.name == "knn_join"]
    assert "--temperature 0.5" in changed_join.joined
    assert changed_join.joined != join.joined


def test_targets_are_what_rules_write(config: Config) -> None:
    for step in (step for step in steps(config) if not step.job.on_request):
        patterns = list(chain(*step.outputs.values()))
        models = ("",) if step.of_all else MODELS
        assert sorted(step.targets()) == sorted(
            pattern.format(dataset=dataset, model=model)
            for pattern in patterns
            for dataset in step.datasets
            for model in models
        )


@pytest.mark.parametrize("name", [name for name, a in analyses().items() if a.jobs])
def test_a_change_of_a_setting_changes_the_commands_of_its_jobs_alone(
    config: Config, name: str
) -> None:
    analysis, settings = analyses()[name], config.analyses[name]
    nodes = schema_of(analysis.settings)["properties"]
    for key in fields(analysis):
        value = another(nodes[key], getattr(settings, key))
        other = with_setting(config, name, **{key: value})
        used = other.analyses[name].used
        mine = {job.name for job in analysis.jobs if key in used(job.settings)}
        mine |= {job.name for job in analysis.jobs if asked(job, config) != asked(job, other)}
        if key in used(analysis.drawn_by):
            mine.add(f"{name}_figures")
        if key in used(analysis.settings.printed_keys()) and name in scored():
            mine.add("collect")
        assert changed(config, other) == mine, key


def asked(job: Job, config: Config) -> set[str]:
    """Return the optional outputs of a job that a config asks for."""
    return {name for name, wanted in job.optional.items() if wanted(config)}


@pytest.mark.parametrize(
    ("analysis", "values", "jobs"),
    [
        ("saliency", {"images": 2}, {"saliency_masks"}),
        ("saliency", {"mass": 0.5}, {"saliency", "saliency_masks", "saliency_figures", "collect"}),
        ("clustering", {"pattern_layers": "last"}, set()),
        ("video", {"masks": "none"}, {"video"}),
        ("keypoints", {"seed": 1}, set()),
        ("retrieval", {"ranks": (1,)}, {"retrieval"}),
        ("keypoints", {"pairs": 9}, {"keypoints", "keypoints_figures", "collect"}),
    ],
)
def test_settings_that_change_no_number_run_nothing(
    config: Config, analysis: str, values: dict[str, Any], jobs: set[str]
) -> None:
    assert changed(config, with_setting(config, analysis, **values)) == jobs


def test_further_features_change_no_figure_of_the_first(config: Config) -> None:
    both, first = (
        with_setting(config, "retrieval", features=f) for f in (("cls", "mean"), ("cls",))
    )
    assert changed(both, first) == {"retrieval"}
    assert "ranking" in changed(both, with_setting(config, "retrieval", features=("mean", "cls")))


def test_jobs_of_a_model_share_submissions_and_those_of_hours_have_their_own(
    config: Config,
) -> None:
    layered = with_setting(config, "knn", layer_jobs=True)
    groups = {step.name: step.group for step in (*steps(config), *steps(layered))}
    some = (
        "gram",
        "attention",
        "video",
        "knn_layers",
        "knn_join",
        "video_of_all",
        "attention_model",
    )
    assert [groups[name] for name in some] == [
        *("gram-{model}", "tables-{model}", None, "knn-{model}", "knn-{model}"),
        *("small", "figures"),
    ]
    assert groups[f"cka_{MODELS[0]}"] == "cka"
    assert groups["cka_of_all"] == "small"


def test_a_label_changes_what_shows_it(config: Config) -> None:
    models = (config.models[0].but(label="Another"), *config.models[1:])
    shows = {job.name for a in analyses().values() for job in a.jobs if job.label or job.together}
    figures = {step.name for step in figure_steps(config)}
    assert changed(config, replace(config, models=models)) == shows | figures


def test_the_order_of_models_changes_the_figures_that_show_it_and_who_makes_pairs(
    config: Config,
) -> None:
    turned = replace(config, models=config.models[::-1])
    # A model's pairs are those with the models before it.
    pairs = {job.name for a in analyses().values() for job in a.jobs if job.of_pairs}
    figures = {step.name for step in figure_steps(config)}
    assert changed(config, turned) == figures | (pairs - {"cka_pair_figure"})


def test_another_model_changes_no_job_of_a_single_one(config: Config) -> None:
    fewer = commands(replace(config, models=config.models[:1], sets={}))
    every = commands(config)
    single = {key for key in every if key[-1] == MODELS[0]}
    assert single
    assert {key: every[key] for key in single} == {key: fewer[key] for key in single}


def test_commands_give_the_settings_of_the_config_back(config: Config) -> None:
    """Of the defaults, and of others, by the parser of the command line itself."""
    parser = build_parser()
    others = config
    for analysis in analyses().values():
        nodes = schema_of(analysis.settings)["properties"]
        for key in fields(analysis):
            value = getattr(config.analyses[analysis.name], key)
            others = with_setting(others, analysis.name, **{key: another(nodes[key], value)})
    for given in (config, others):
        for step in steps(given):
            at = At(step.datasets[0], MODELS[0])
            words = [*shlex.split(step.command(at)), *shlex.split(step.scope(at, []))]
            options = parser.parse_args(["run", *words])
            told: Settings = given_settings(options, step.analysis.settings)
            if words[-len(getattr(step.settings, "tokens", ())) - 1] == "--tokens":
                assert told.tokens == step.settings.tokens
            for key, value in step.job.used(step.settings).items():
                assert getattr(told, key) == value, (step.name, key)


def test_all_scored_analyses_are_collected_in_the_order_of_figures(config: Config) -> None:
    (collect,) = [step for step in figure_steps(config) if step.name == "collect"]
    words = shlex.split(collect.command(At("", "")))
    tables = words[words.index("--tables") + 1 : words.index("--printed")]
    kinds = {name: analyses()[name].annotations or "digits" for name in scored()}
    assert tables == [f"{n}/{k}-{size}" for n, k in kinds.items() for size in ("few", "many")]
    assert list(collect.inputs) == [
        f"results/{table}/{model}.csv" for table in tables for model in MODELS
    ]
    assert set(collect.outputs) == {
        *("results/tasks/all.csv", "results/tasks/best.csv"),
        *(
            f"results/tasks/sets/{chosen}/{name}.{kind}"
            for chosen in model_sets(config)
            for name in TOGETHER
            for kind in ("png", "pdf", "csv")
        ),
    }


def test_without_a_scored_analysis_nothing_is_collected(config: Config) -> None:
    some = {name: config.analyses[name] for name in ("sinks", "cka")}
    names = [step.name for step in figure_steps(replace(config, analyses=some))]
    assert "collect" not in names


def rules_of(config: Config, job: str) -> list[Step]:
    return [step for step in steps(config) if step.job.name == job]


@pytest.mark.parametrize("name", ["cka", "similarity"])
def test_every_pair_and_kind_of_tokens_is_a_table(config: Config, name: str) -> None:
    tokens = config.analyses[name].tokens
    made = [path for step in rules_of(config, name) for path in step.targets()]
    pairs = ("demo-dino--demo-dino", "demo-dino--demo-mae", "demo-mae--demo-mae")
    expected = {
        f"results/{name}/digits-{size}/{kind}/{pair}.csv"
        for size in ("few", "many")
        for kind in tokens
        for pair in pairs
    }
    assert set(made) == expected
    assert len(made) == len(expected)
    (figures,) = [step for step in figure_steps(config) if step.name == f"{name}_figures"]
    assert set(figures.inputs) == expected


def test_a_job_of_pairs_waits_for_the_gram_matrices_of_its_models(config: Config) -> None:
    first, second, every = rules_of(config, "cka")
    grams = "results/cka/gram/digits-{}/{}/demo-{}.safetensors"
    for step, size, models in (
        (first, "many", ["dino"]),
        (second, "many", ["dino", "mae"]),
        (every, "few", ["dino", "mae"]),
    ):
        expected = {grams.format(size, k, m) for k in ("cls", "spatial", "all") for m in models}
        assert set(step.inputs(At(f"digits-{size}", ""))) == expected


def test_another_model_written_last_changes_no_pairs_of_the_others(config: Config) -> None:
    entry = config.models[0].but(id="a-first")
    every, more = commands(config), commands(replace(config, models=(*config.models, entry)))
    single = [key for key in every if key[0] in ("cka", "similarity") and key[1] == "digits-many"]
    assert len(single) == 4
    for key in single:
        assert more[key] == every[key]
    # Of all pairs in one process, the order of the config is of no interest.
    turned = replace(config, models=config.models[::-1])
    for step in (rules_of(config, "cka")[-1], rules_of(turned, "cka")[-1]):
        assert step.command(At("digits-few", "")).endswith("--models demo-dino demo-mae")


def test_minutes_of_pairs_add_up_behind_one_start(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "images_of", lambda *_: 5000)
    for step, n_pairs in zip(rules_of(config, "cka"), (1, 2, 3), strict=True):
        study = Study(config, "cka", "digits-many", *MODELS)
        each = step.job.needs(study).minutes
        assert each > 10
        expected = 10 + n_pairs * 3 * (each - 10)  # kinds of tokens
        assert step.minutes(At("digits-many", ""), 1) == expected
        assert step.memory_mb(At("digits-many", ""), 1) == step.job.needs(study).memory_mb


def test_minutes_of_models_that_share_a_job_add_up_behind_one_start(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "images_of", lambda *_: 5000)
    (step,) = [step for step in steps(config) if step.of_all and step.job.name == "clustering"]
    each = [
        step.job.needs(Study(config, "clustering", "digits-few", model)).minutes for model in MODELS
    ]
    expected = 10 + sum(minutes - 10 for minutes in each)
    assert step.minutes(At("digits-few", ""), 1) == expected > max(each)


def test_gram_matrices_are_of_all_kinds_that_analyses_ask_for(config: Config) -> None:
    def kinds(given: Config) -> dict[str, str]:
        found = rules_of(given, "gram")
        return {step.name: step.scope(At("", ""), []) for step in found}

    every = with_setting(config, "similarity", tokens=("mean", "cls"))
    names = ("gram", "gram_of_all")
    assert kinds(every) == dict.fromkeys(names, "--tokens cls mean spatial all")
    alone = {name: s for name, s in every.analyses.items() if name != "cka"}
    assert kinds(replace(every, analyses=alone)) == dict.fromkeys(names, "--tokens cls mean")
    neither = {name: s for name, s in alone.items() if name != "similarity"}
    assert kinds(replace(every, analyses=neither)) == {}
    # Where datasets are asked for different kinds, rules have other outputs.
    apart = with_setting(every, "similarity", tokens=("mean",), datasets=("digits-few",))
    assert kinds(apart) == {
        "gram_cls_mean_spatial_all_of_all": "--tokens cls mean spatial all",
        "gram_cls_spatial_all": "--tokens cls spatial all",
    }


def test_kinds_of_tokens_that_go_after_use_are_made_apart(config: Config) -> None:
    keeping = replace(config, extraction=config.extraction.but(keep=("cls",)))
    stay, stay_of_all, *go_each = rules_of(keeping, "gram")
    assert stay_of_all.of_all
    (go,) = go_each
    at = At("digits-many", MODELS[0])
    assert (stay.scope(at, []), go.scope(at, [])) == ("--tokens cls", "--tokens spatial all")
    store = f"results/features/digits-many/{MODELS[0]}"
    assert stay.inputs(at) == [f"{store}.json"]
    assert go.inputs(at) == [f"{store}.json", f"{store}.transient"]
    # A further model must not need what others dropped.
    assert go.datasets == ("digits-few", "digits-many")
    # The mean stands in for CLS tokens, maybe.
    mean = with_setting(keeping, "cka", without_cls="mean")
    assert [s.scope(at, []) for s in rules_of(mean, "gram")] == ["--tokens cls spatial all"]
    assert not rules_of(mean, "gram")[0].of_all


def test_the_figure_of_a_pair_is_made_in_either_order_when_it_is_asked_for(config: Config) -> None:
    (step,) = rules_of(config, "cka_pair_figure")
    assert isinstance(step, RequestedStep)
    assert list(step.targets()) == []
    assert step.constraints["tokens"] == "cls|spatial|all"
    folder = "results/similarity/{dataset}/{tokens}/pairs/{model}--{other}"
    assert step.outputs["out"] == [f"{folder}.{kind}" for kind in ("png", "pdf", "csv")]
    at = At("digits-few", "demo-mae", tokens="all", other="demo-dino")
    table = "results/cka/digits-few/all/demo-dino--demo-mae.csv"
    assert step.inputs(at) == [table]
    words = shlex.split(step.command(at))
    assert words[1] == table
    shown = json.loads(words[words.index("--models") + 1])
    assert [model["id"] for model in shown] == ["demo-mae", "demo-dino"]


def test_how_figures_are_written_changes_what_draws_them_and_nothing_else(config: Config) -> None:
    other = replace(config, figures={"format": ["png", "svg"], "columns": 1})
    said = json.dumps(other.figures, sort_keys=True)
    drawing = {step.name for step in figure_steps(config)}
    drawing |= {"attention_maps", "attention_model", "video", "keypoints", "ranking"}
    drawing |= {"saliency_masks", "cka_pair_figure"}
    assert changed(config, other) == drawing
    for step in [*steps(other), *figure_steps(other)]:
        files = step.outputs
        outputs = [x for some in files.values() for x in some] if isinstance(files, dict) else files
        assert not any(path.endswith(".pdf") for path in outputs)
        pictures = [path for path in outputs if path.endswith(".png")]
        assert {path.replace(".png", ".svg") for path in pictures} <= set(outputs)
    words = [shlex.split(c) for key, c in commands(other).items() if key[0] in drawing]
    assert all(said in some for some in words)
