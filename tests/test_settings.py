"""One pass of a dataset takes what all analyses of it need, and keeps no more images than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from vitfeat.analyses.registry import analyses
from vitfeat.analyses.settings import Limit
from vitfeat.config.config import add_taps
from vitfeat.config.page import settings_page
from vitfeat.config.parsing import parse_config
from vitfeat.errors import ConfigError
from vitfeat.settings.schema import schema_of


def parsed(analyses: dict[str, Any], **more: Any) -> Any:
    digits = {"layout": "digits", "split": "test"}
    config = {
        "models": ["demo-dino", "demo-mae"],
        "datasets": {"digits": digits, "other": digits, "photos": {"layout": "flat", "root": "x"}},
        "analyses": {n: {"datasets": ["digits"], **a} for n, a in analyses.items()},
        **more,
    }
    return parse_config(config)


@pytest.mark.parametrize(
    ("analyses", "taps"),
    [
        ({"similarity": {"tokens": ["mean"]}}, ["spatial"]),
        ({"attention": {}}, ["attention_summary", "spatial"]),
        ({"attention": {"high_norm": None}}, ["attention_summary"]),
        ({"attention_maps": {}}, []),
        ({"clustering": {}}, ["cls", "spatial"]),
        ({"clustering": {"features": ["cls", "attention_mean"]}}, ["attention_mean", "cls"]),
        (
            {"residual": {}},
            ["attn_branch", "block_input", "mlp_branch", "residual_norms"],
        ),
        ({"residual": {"tokens": []}}, ["residual_norms"]),
    ],
)
def test_each_analysis_takes_what_it_is_made_from(
    analyses: dict[str, Any], taps: list[str]
) -> None:
    config = parsed(analyses)
    assert config.taps("digits") == taps
    assert config.taps("other") == []


def test_tasks_take_what_they_are_made_from() -> None:
    root = {"root": "embedded"}
    datasets = {
        "digits": {"layout": "digits", "split": "test"},
        "train": {"layout": "digits", "split": "train"},
        "masks": {"layout": "coco", "split": "val2017", **root},
        "sights": {"layout": "revisited", **root},
        "videos": {"layout": "davis", "split": "val", **root},
        "pairs": {"layout": "spair", "split": "test", **root},
    }
    analyses = {
        "knn": {"datasets": ["digits"], "train": {"digits": "train"}, "features": ["cls"]},
        "regions": {"datasets": ["masks"]},
        "saliency": {"datasets": ["masks"], "queries": ["centre"]},
        "retrieval": {"datasets": ["sights"]},
        "video": {"datasets": ["videos"]},
        "keypoints": {"datasets": ["pairs"]},
    }
    config = parsed(analyses, datasets=datasets)
    assert {name: config.taps(name) for name in datasets} == {
        "digits": ["cls"],
        "train": ["cls"],
        "masks": ["attention_centre", "regions"],
        "sights": ["cls", "spatial"],
        "videos": ["spatial"],
        "pairs": ["spatial"],
    }
    assert {n: config.view(n).kind for n in datasets} == {
        "digits": "square",
        "train": "square",
        "masks": "square",
        "sights": "dense",
        "videos": "dense",
        "pairs": "padded",
    }
    assert config.datasets["masks"].annotations == "regions"
    assert config.datasets["digits"].annotations is None
    assert config.datasets["masks"].root.as_posix() == "results/demo/coco"
    analyses["saliency"]["queries"] = ["cls", "mean"]
    assert parsed(analyses, datasets=datasets).taps("masks") == [
        "attention_summary",
        "regions",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {}}, r"knn.train: names no dataset that 'digits' is classified from"),
        ({"train": {"digits": "digits"}}, r"knn.train.digits: .* cannot be classified from itself"),
        ({"train": {"digits": "nowhere"}}, r"knn.train: unknown dataset 'nowhere'"),
        ({"train": {"digits": "other", "photos": "other"}}, r"train.photos: is not among"),
        ({"train": {"digits": "photos"}}, r"knn.train: knn needs a label.*'flat'"),
        ({}, r"knn: the key 'train' is missing"),
    ],
)
def test_what_a_dataset_is_classified_from(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed({"knn": settings})


def test_tasks_need_annotated_datasets() -> None:
    with pytest.raises(ConfigError, match=r"video needs a dataset of the layout davis.*of digits"):
        parsed({"video": {}})
    with pytest.raises(ConfigError, match=r"regions needs .* layout coco or partimagenet"):
        parsed({"regions": {}})


def test_only_some_layouts_are_embedded() -> None:
    photos = {"photos": {"layout": "flat", "root": "embedded"}}
    with pytest.raises(ConfigError, match=r"photos.root: no small dataset.*digits, coco"):
        parsed({}, datasets=photos)


def test_what_stands_in_for_cls_is_extracted_for_similarity_too() -> None:
    cka = {"datasets": ["other"], "tokens": ["mean"]}
    similarity = {"tokens": ["cls"]}
    for without_cls, taps in (("leave_out", ["cls"]), ("mean", ["cls", "spatial"])):
        config = parsed({"cka": cka | {"without_cls": without_cls}, "similarity": similarity})
        assert config.taps("digits") == taps


def test_taps_are_kept_for_no_more_images_than_asked() -> None:
    config = parsed({"residual": {"images": 40}})
    branches = dict.fromkeys(("block_input", "attn_branch", "mlp_branch"), 40)
    assert config.limits("digits") == branches
    assert config.limits("other") == {}


def test_images_whose_attention_is_shown_have_a_pass_of_their_own() -> None:
    config = parsed({"attention_maps": {"images": ["a.png", "b/c.png"]}, "cka": {}})
    assert config.taps("digits") == ["cls", "registers", "spatial"]
    assert config.limits("digits") == {}
    assert config.reads("digits")
    assert not config.reads("other")


def test_a_tap_asked_for_by_name_is_kept_for_all_images() -> None:
    config = parsed(
        {"attention_maps": {}, "residual": {"images": None}},
        extraction={"taps": ["attention"]},
    )
    assert config.limits("digits") == {}
    assert config.limits("other") == {}
    assert config.taps("other") == ["attention"]


def test_clustering_refuses_datasets_without_labels() -> None:
    with pytest.raises(ConfigError, match=r"clustering needs a label.*'flat'.*digits, other"):
        parsed({"clustering": {"datasets": ["photos"]}})


def test_sets_of_figures_hold_models_of_the_config() -> None:
    config = parsed({}, figures={"sets": {"one": ["demo-mae"]}})
    assert config.sets == {"one": ("demo-mae",)}
    with pytest.raises(ConfigError, match=r"figures\.sets\.one.*'demo-mea'.*'demo-mae'"):
        parsed({}, figures={"sets": {"one": ["demo-mea"]}})


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (3, 8, 8),
        (8, 3, 8),
        (3, None, None),
        (None, 3, None),
    ],
)
def test_more_images_win_over_fewer(first: Limit, second: Limit, both: Limit) -> None:
    taps: dict[str, Limit] = {}
    add_taps(taps, {"attention": first, "cls": None})
    add_taps(taps, {"attention": second})
    assert taps == {"attention": both, "cls": None}


def test_the_page_of_settings_is_that_of_the_code(root: Path) -> None:
    assert (root / "docs/settings.md").read_text("utf-8") == settings_page()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_setting_takes_a_number_that_is_not_finite(value: float) -> None:
    tried = 0
    for analysis in analyses().values():
        for key, node in schema_of(analysis.settings)["properties"].items():
            items = node.get("items", {})
            for given, kind in ((value, node.get("type")), ((value,), items.get("type"))):
                if kind == "number":
                    tried += 1
                    with pytest.raises(ConfigError, match=key):
                        analysis.settings.checked("", {key: given})
    assert tried > 8


def test_defaults_are_what_given_values_become() -> None:
    """Commands have the text of each: 98 and 98.0 would be two commands for the same."""
    for analysis in analyses().values():
        for key, field in analysis.settings.model_fields.items():
            if key not in analysis.settings.required:
                given = TypeAdapter(field.rebuild_annotation()).validate_python(field.default)
                assert repr(given) == repr(field.default), (analysis.name, key)
