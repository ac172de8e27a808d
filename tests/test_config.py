"""A bad config is one line: the key, what was found, what is allowed, the nearest match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.cli import main
from vitfeat.config.parsing import parse_config, read_config
from vitfeat.errors import ConfigError
from vitfeat.models.entry import builtin_catalog

Change = Callable[[dict[str, Any]], Any]


def _set(*path: Any) -> Change:
    *keys, last, value = path

    def change(config: dict[str, Any]) -> None:
        node: Any = config
        for key in keys:
            node = node[key]
        node[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("modles", []), ["'modles'", "did you mean 'models'", "datasets"]),
        (_set("extraction", "dtpye", "x"), ["extraction.dtpye", "'dtype'", "precision"]),
        (_set("analyses", "ckaa", {}), ["analyses.ckaa", "'cka'"]),
        (_set("datasets", "digits", "splitt", "x"), ["datasets.digits.splitt", "'split'"]),
        (_set("catalog", "m", {"source": "timm", "nam": "x"}), ["catalog.m.nam", "'name'"]),
        (_set("models", "demo-dino"), ["models", "'demo-dino' (a text)", "a list"]),
        (_set("models", []), ["models"]),
        (_set("models", ["demo-dino", "demo-dino"]), ["models: 'demo-dino' stands there twice"]),
        (_set("datasets", "coco", "orientation", True), ["found True; allowed: stored, exif"]),
        (
            _set("datasets", "digits", "view", {"interpolation": "area"}),
            ["found 'area'; allowed: bicubic, bilinear, lanczos, null"],
        ),
        (_set("models", ["demo-dinno"]), ["'demo-dinno'", "'demo-dino'", "vitfeat models"]),
        (_set("extraction", "batch_size", "many"), ["extraction.batch_size", "a whole number"]),
        (_set("extraction", "layers", "frist"), ["extraction.layers", "'frist'", "middle"]),
        (_set("extraction", "layers", []), ["extraction.layers", "empty"]),
        (_set("extraction", "device", "gpu"), ["found 'gpu'; allowed: auto, cpu, cuda (an NV"]),
        (_set("extraction", "device", 0), ["found 0 (a whole number); allowed: auto, cpu, cuda"]),
        (_set("extraction", "batch_size", True), ["extraction.batch_size", "true or false"]),
        (_set("extraction", "batch_size", 0), ["extraction.batch_size", "found 0", "≥ 1"]),
        (_set("extraction", "dtype", "float61"), ["'float61'", "'float16'", "float32"]),
        (_set("extraction", "keep_bits", 10), ["extraction.keep_bits: found 10; float16 has 10"]),
        (_set("extraction", "precision", "fp8"), ["'fp8'", "bf16"]),
        (_set("extraction", "taps", ["clss"]), ["extraction.taps.0", "'clss'", "'cls'"]),
        (_set("extraction", "workers", "many"), ["extraction.workers", "'many'"]),
        (_set("extraction", None), ["extraction", "null", "a mapping"]),
        (_set("datasets", "digits", "layout", "digit"), ["'digit'", "'digits'", "imagenet50"]),
        (
            _set("datasets", "photos", {"layout": "flat"}),
            ["datasets.photos: ", "'root' is missing"],
        ),
        (_set("datasets", "photos", {}), ["datasets.photos", "'layout'", "missing"]),
        (_set("datasets", "a/b", {"layout": "flat", "root": "x"}), ["datasets", "a/b"]),
        (_set("analyses", "cka", "datasets", ["digit"]), ["'digit'", "'digits'"]),
        (_set("analyses", "knn", "temperature", float("nan")), ["analyses.knn.temperature", "nan"]),
        (_set("analyses", "keypoints", "alphas", [float("inf")]), ["keypoints.alphas.0", "inf"]),
        (_set("analyses", "cka", {}), ["analyses.cka", "'datasets'", "missing"]),
        (_set("analyses", "cka", "estimators", ["unbiased"]), ["'unbiased'", "debiased"]),
        (_set("analyses", "cka", "tokens", ["means"]), ["'means'", "'mean'", "spatial, all"]),
        (_set("analyses", "cka", "without_cls", "meen"), ["'meen'", "'mean'", "leave_out"]),
        (_set("analyses", "cka", "without_cls", True), ["cka.without_cls", "leave_out, mean"]),
        (
            _set("analyses", "clustering", "pattern_layers", "lats"),
            ["clustering.pattern_layers", "'lats'", "middle"],
        ),
        (_set("analyses", "clustering", "clusters", 1), ["clustering.clusters", "found 1"]),
        (_set("analyses", "cka", "batch_size", 3), ["analyses.cka.batch_size", "found 3"]),
        (_set("catalog", "m", {"source": "timn", "name": "x"}), ["'timn'", "'timm'"]),
        (_set("results", "re{s}ults"), ["results", "'{'"]),
        (_set("weights", "we}ights"), ["weights", "'}'"]),
        (_set("results", "two\nlines"), ["results", "'\\n'"]),
        (_set("datasets", "p", {"layout": "flat", "root": ""}), ["datasets.p.root", "''"]),
        (
            _set("datasets", "p", {"layout": "flat", "root": "."}),
            ["datasets.p.root", "folder of results 'results'"],
        ),
        (_set("results", "-out"), ["results", "'-out'", "a flag", "whole path"]),
        (_set("results", "~nobody-of-this-name/out"), ["results", "no folder of that user"]),
        (
            _set("datasets", "digits", "root", "~nobody-of-this-name"),
            ["datasets.digits.root", "no folder of that user"],
        ),
        (_set("catalog", "a--b", {"source": "timm", "name": "x"}), ["a--b", "'--'"]),
        (_set("figures", "sets", {"all": ["demo-dino"]}), ["figures.sets.all", "choose another"]),
        (_set("figures", "sets", {16: ["demo-dino"]}), ["figures.sets", "16", "in quotes"]),
        (_set("datasets", {2024: {"layout": "digits"}}), ["datasets", "2024", "in quotes"]),
        (
            _set("catalog", "m", {"source": "timm", "name": "x", "normalisation": "imagnet"}),
            ["'imagnet'", "'imagenet'"],
        ),
    ],
)
def test_one_line_says_what_is_wrong(
    default_config: dict[str, Any], change: Change, words: list[str]
) -> None:
    change(default_config)
    with pytest.raises(ConfigError) as caught:
        parse_config(default_config)
    message = str(caught.value)
    assert "\n" not in message
    assert "^" not in message, "a regular expression is no message"
    for word in words:
        assert word in message


def _patterns(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield path, schema
        for key, below in schema.items():
            yield from _patterns(below, f"{path}.{key}")


def test_what_every_pattern_allows_is_said_in_words(
    schema: Mapping[str, Any],
) -> None:
    found = dict(_patterns(schema))
    assert ".properties.extraction.properties.device" in found
    for path, below in found.items():
        assert below.get("allowed"), path


@pytest.mark.parametrize("key", ["models", "datasets"])
def test_a_missing_key_is_named(default_config: dict[str, Any], key: str) -> None:
    del default_config[key]
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        parse_config(default_config)


def test_an_analysis_that_needs_labels_refuses_a_dataset_without(
    default_config: dict[str, Any],
) -> None:
    default_config["datasets"]["photos"] = {"layout": "flat", "root": "images"}
    default_config["analyses"]["cka"]["datasets"] = ["digits", "photos"]
    parse_config(default_config)
    default_config["analyses"]["clustering"]["datasets"] = ["digits", "photos"]
    with pytest.raises(ConfigError, match=r"clustering needs a label.*'flat'.*'photos'.*digits"):
        parse_config(default_config)


DENSE = {"kind": "dense", "short_side": 64}


@pytest.mark.parametrize(
    ("dataset", "view", "words"),
    [
        ("coco", DENSE, ["analyses.saliency", "attention_summary", "'coco'", "kind: square"]),
        ("spair", DENSE | {"passes": "tiled"}, []),
        ("revisited", DENSE | {"passes": "tiled"}, ["analyses.retrieval", "cls", "passes: one"]),
        ("digits", {"kind": "padded"}, ["datasets.digits-train.view", "'digits'", "one view"]),
    ],
)
def test_views_that_do_not_give_what_analyses_need(
    default_config: dict[str, Any],
    dataset: str,
    view: dict[str, Any],
    words: list[str],
) -> None:
    default_config["datasets"][dataset]["view"] = view
    if not words:
        parse_config(default_config)
        return
    with pytest.raises(ConfigError) as raised:
        parse_config(default_config)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("tokens", ["spatial", "all"])
def test_flattened_tokens_of_a_dense_view(default_config: dict[str, Any], tokens: str) -> None:
    cka = default_config["analyses"]["cka"]
    cka |= {"datasets": ["digits", "davis"], "tokens": ["cls", "mean"]}
    parse_config(default_config)
    cka["tokens"] = ["cls", tokens]
    with pytest.raises(ConfigError, match=rf"^analyses\.cka\.tokens: {tokens} of 'davis'"):
        parse_config(default_config)


def test_asked_taps_that_a_dense_view_lacks_are_left_out(default_config: dict[str, Any]) -> None:
    default_config["extraction"]["taps"] = ["registers", "attention"]
    config = parse_config(default_config)
    assert set(config.taps("davis")) == {"registers", "spatial"}
    assert {"registers", "attention"} < set(config.taps("spair"))


@pytest.mark.parametrize(
    ("given", "found"),
    [("all", "all"), ("last", "last"), (3, 3), ("3", 3), (["first", "2"], ("first", 2))],
)
def test_layers_of_patterns_by_name_or_number(
    default_config: dict[str, Any], given: Any, found: Any
) -> None:
    default_config["analyses"]["clustering"]["pattern_layers"] = given
    settings = parse_config(default_config).settings(ClusteringSettings)
    assert settings is not None
    assert settings.pattern_layers == found


def test_the_config_is_not_changed(default_config: dict[str, Any]) -> None:
    before = deepcopy(default_config)
    parse_config(default_config)
    assert default_config == before


def test_defaults_are_filled_in() -> None:
    config = parse_config(
        {
            "models": ["demo-dino"],
            "datasets": {"digits": {"layout": "digits", "split": "test"}},
            "analyses": {"cka": {"datasets": ["digits"], "tokens": ["cls"]}},
        },
    )
    assert config.results.as_posix() == "results"
    assert config.extraction.dtype == "float16"
    cka = config.settings(CkaSettings)
    assert cka is not None
    assert cka.estimators == ("debiased",)
    assert cka.without_cls == "leave_out"
    assert config.datasets["digits"].root.as_posix() == "results/demo/digits"


def test_one_pass_takes_every_tap_that_anything_needs(default_config: dict[str, Any]) -> None:
    default_config["analyses"] = {"cka": {"datasets": ["digits"], "tokens": ["cls"]}}
    default_config["extraction"]["taps"] = ["attention_summary"]
    config = parse_config(default_config)
    assert config.taps("digits") == ["attention_summary", "cls"]
    # Asked for by name, so every dataset gets it.
    assert config.taps("digits-train") == ["attention_summary"]


@pytest.mark.parametrize(
    ("tokens", "without_cls", "taps"),
    [
        (["cls"], "leave_out", ["cls"]),
        (["cls"], "mean", ["cls", "spatial"]),
        (["mean"], "leave_out", ["spatial"]),
        (["spatial"], "mean", ["spatial"]),
        (["all"], "leave_out", ["cls", "registers", "spatial"]),
    ],
)
def test_what_stands_in_for_cls_is_extracted(
    default_config: dict[str, Any],
    tokens: list[str],
    without_cls: str,
    taps: list[str],
) -> None:
    cka = {"datasets": ["digits"], "tokens": tokens, "without_cls": without_cls}
    default_config["analyses"] = {"cka": cka}
    assert parse_config(default_config).taps("digits") == taps


def test_texts_of_overrides_are_read_as_what_is_wanted(default_config: dict[str, Any]) -> None:
    # Snakemake gives every value inside of an override's mapping as a text.
    default_config["extraction"] = {"batch_size": "16", "replace": "false", "layers": ["0", "last"]}
    default_config["datasets"]["digits"]["limit"] = "3"
    default_config["catalog"] = {
        "mine": {"source": "timm", "name": "vit_tiny_patch16_224", "pretrained": "false"},
        "tagged": {"source": "open_clip", "name": "ViT-B-32", "pretrained": "openai", "label": "7"},
    }
    default_config["models"] = ["mine", "tagged"]
    config = parse_config(default_config)
    assert config.extraction.batch_size == 16
    assert config.extraction.replace is False
    assert config.extraction.layers == (0, "last")
    assert config.datasets["digits"].limit == 3
    assert config.model("mine").pretrained is False
    assert (config.model("tagged").pretrained, config.model("tagged").label) == ("openai", "7")


def test_user_entries_come_before_the_catalogue(default_config: dict[str, Any]) -> None:
    default_config["catalog"] = {
        "demo-dino": {"source": "timm", "name": "vit_tiny_patch16_224", "label": "Mine"}
    }
    model = parse_config(default_config).model("demo-dino")
    assert (model.source, model.label) == ("timm", "Mine")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"source": "timm", "name": "vit_smal_patch16_224"}, "did you mean 'vit_small_patch16_2"),
        ({"source": "timm", "name": "swin_tiny_patch4_window7_224"}, "is no plain ViT"),
        ({"source": "timm", "name": "vit_small_patch16_224", "image_size": 225}, "take 224 or 240"),
        (
            {"source": "checkpoint", "name": "vit_small_patch16_224", "checkpoint": "no/w.pth"},
            r"catalog\.mine\.checkpoint: no checkpoint file no/w\.pth",
        ),
    ],
)
def test_models_are_checked_with_the_config(
    default_config: dict[str, Any], entry: dict[str, Any], words: str
) -> None:
    """Row 30; tests/models/test_entry_checks.py has the rest."""
    default_config["catalog"]["mine"] = entry
    parse_config(default_config)  # not among the models
    default_config["models"] = ["mine"]
    with pytest.raises(ConfigError, match=words):
        parse_config(default_config)


@pytest.mark.parametrize("value", [None, ""])
def test_a_weight_file_that_was_left_empty_is_remarked(
    default_config: dict[str, Any], value: str | None
) -> None:
    entry = {"source": "timm", "name": "vit_small_patch16_224", "checkpoint": value}
    default_config["catalog"]["mine"] = entry
    default_config["models"] = ["mine"]
    remarks = parse_config(default_config).remarks
    assert remarks == ("model mine: catalog.mine.checkpoint is empty, so it is untrained",)


def test_what_only_a_weight_file_can_tell_is_remarked(default_config: dict[str, Any]) -> None:
    entry = {"source": "timm", "name": "vit_small_patch16_224", "weights": "me/mine"}
    default_config["catalog"]["mine"] = entry
    assert parse_config(default_config).remarks == ()
    default_config["models"] = ["demo-dino", "mine"]
    (remark,) = parse_config(default_config).remarks
    assert "model mine: " in remark
    assert "catalog.mine.normalisation" in remark


def test_a_key_that_stands_twice_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    """Also where it is written in two ways; merged mappings may repeat what they are merged to."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "models: [demo-dino]\ndatasets:\n  digits: &d {layout: digits, split: test}\n"
        "  other:\n    <<: *d\n    split: train\n    'split': test\nmodels: []\n"
    )
    with pytest.raises(ConfigError) as info:
        read_config(file)
    assert info.value.args == (
        f"{file}: line 7: the key 'datasets.other.split' stands there twice, first in line 6; "
        "remove one",
        f"{file}: line 8: the key 'models' stands there twice, first in line 1; remove one",
    )
    file.write_text(file.read_text().replace("    'split': test\nmodels: []\n", ""))
    assert read_config(file).datasets["other"].split == "train"


def test_all_that_is_wrong_is_told_at_once(default_config: dict[str, Any]) -> None:
    default_config["extraction"]["batch_size"] = 0
    default_config["datasets"]["digits"]["limit"] = -1
    default_config["analyses"] = None
    with pytest.raises(ConfigError) as info:
        parse_config(default_config)
    assert len(info.value.args) == 3
    told = str(info.value)
    assert "datasets.digits.limit: found -1" in told
    assert "extraction.batch_size: found 0" in told
    assert "analyses: found None (null); allowed: a mapping, with keys out of cka, " in told
    assert "write its keys below it, indented, or remove it" in told


def test_printed_models_stand_in_a_config_as_they_are(
    default_config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = list(builtin_catalog())
    assert main(["models", *ids]) == 0
    config = {**default_config, "models": ids, **yaml.safe_load(capsys.readouterr().out)}
    assert parse_config(config).models == tuple(builtin_catalog().values())
