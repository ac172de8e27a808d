"""Models whose features are from elsewhere: what is planned with them, and what is refused."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from vitfeat.analyses.registry import analyses
from vitfeat.config.config import Config
from vitfeat.config.parsing import parse_config
from vitfeat.disk import GRAMS
from vitfeat.errors import ConfigError
from vitfeat.plan.disk import known_sizes, planned
from vitfeat.plan.rules import figure_steps, steps
from vitfeat.plan.steps import Step

CNN = {"source": "features", "name": "resnet50", "features": "feats/{dataset}.npz"}
SOURCES: dict[str, Any] = {
    "digits": {"layout": "digits", "split": "test"},
    "train": {"layout": "digits", "split": "train"},
    "davis": {"layout": "davis", "root": "embedded", "split": "val"},
}
ANALYSES: dict[str, Any] = {
    "cka": {"datasets": ["digits"]},
    "knn": {"datasets": ["digits"], "train": {"digits": "train"}},
    "attention": {"datasets": ["digits"]},
    "attention_maps": {"datasets": ["digits"]},
    "video": {"datasets": ["davis"]},
}


@pytest.fixture(autouse=True)
def feats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "feats"
    folder.mkdir()
    for name in ("digits", "train"):
        (folder / f"{name}.npz").touch()
    return folder


def config_of(**changes: Any) -> Config:
    raw = {
        "models": ["demo-dino", "cnn", "demo-mae"],
        "catalog": {"cnn": CNN},
        "datasets": SOURCES,
        "analyses": ANALYSES,
        "figures": {"sets": {"both": ["cnn", "demo-mae"], "alone": ["cnn"]}},
    }
    return parse_config(raw | changes)


def of(config: Config, name: str) -> list[Step]:
    return [s for s in steps(config) if s.analysis.name == name]


def test_it_takes_part_in_what_needs_a_vector_an_image_and_in_nothing_else() -> None:
    config = config_of()
    with_vectors = {name for name, analysis in analyses().items() if analysis.vectors}
    assert with_vectors == {
        *("cka", "similarity", "knn", "linear_probe", "retrieval", "clustering")
    }
    for step in steps(config):
        files = [*step.targets(), *chain(*step.outputs.values()), str(step.constraints)]
        if not step.job.on_request:
            takes_part = step.analysis.vectors
            assert any(re.search(r"\bcnn\b", file) for file in files) == takes_part, step.name
    sets = {name: step.command(None) for step in figure_steps(config) for name in [step.name]}
    assert "alone" in sets["cka_figures"]
    assert "alone" not in sets["attention_figures"]
    assert "cnn" not in sets["attention_figures"]
    assert '"both": ["demo-mae"]' in sets["attention_figures"]


def test_tables_of_analyses_that_it_has_no_part_in_are_not_collected() -> None:
    (collect,) = [step for step in figure_steps(config_of()) if step.name == "collect"]
    assert "results/knn/digits/cnn.csv" in collect.inputs
    assert [path for path in collect.inputs if "video" in path] == [
        f"results/video/davis/{model}.csv" for model in ("demo-dino", "demo-mae")
    ]
    words = shlex.split(collect.command(None))
    assert words[words.index("--imported") + 1 :][0] == "cnn"


def test_nothing_but_it_costs_nothing_but_itself() -> None:
    """Stores that go after use are not waited for, as it has none of them."""
    alone = config_of(models=["cnn"], figures={"sets": {}})
    assert {step.analysis.name for step in steps(alone)} == {"cka", "knn"}
    assert {step.name for step in figure_steps(alone)} == {"cka_figures", "knn_figures", "collect"}
    (gram,) = [s for s in of(config_of(extraction={"keep": []}), "cka") if s.job.name == "gram"]

    class At:
        dataset, model = "digits", "cnn"

    assert list(gram.inputs(At())) == ["results/features/digits/cnn.json"]


def test_its_vectors_are_little_on_the_disk() -> None:
    """Beside its Gram matrices, which are as large as any."""
    config = config_of()
    items = planned(config, known_sizes(config))
    assert {item.kind for item in items if item.model == "cnn"} == {GRAMS}
    assert {item.kind for item in items if item.model == "demo-mae"} > {GRAMS}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"catalog": {"cnn": CNN | {"features": "feats/digits.npz"}}},
            r"catalog\.cnn\.features: found 'feats/digits\.npz', one file for the datasets digits, "
            r"train; write \{dataset\} where",
        ),
        (
            {"catalog": {"cnn": CNN | {"features": "f/{dataset}.npz"}}},
            r"catalog\.cnn\.features: f/digits\.npz does not exist, the features of 'digits'",
        ),
        (
            {"catalog": {"cnn": {"source": "features", "name": "x"}}},
            "the source features needs the key 'features'",
        ),
        (
            {"catalog": {"cnn": CNN | {"image_size": 32}}},
            r"cnn\.image_size: models of the source features do not take it",
        ),
        (
            {"catalog": {"cnn": CNN | {"source": "timm", "name": "vit_tiny_patch16_224"}}},
            r"cnn\.features: models of the source timm do not take it",
        ),
    ],
)
def test_what_an_entry_cannot_be(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        config_of(**changes)
