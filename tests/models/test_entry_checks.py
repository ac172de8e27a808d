"""What a plan says of a model before any job runs (rows 28 and 30 of what once failed)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm

from tests.models.architectures import ACCEPTED, REFUSED
from vitfeat.demo import network
from vitfeat.errors import ConfigError
from vitfeat.models import library_names, noise
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.entry_checks import _OWN_NAMES, check_entry

S16 = "vit_small_patch16_224"


def _check(**fields: Any) -> list[str]:
    return check_entry(ModelEntry.from_mapping("m", {"source": "timm", "name": S16, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "vit_smal_patch16_224"}, f"did you mean '{S16}'"),
        ({"name": "VIT_small_patch16_224"}, f"did you mean '{S16}'"),
        ({"name": f"{S16}.dinno"}, "no tag 'dinno' of .*did you mean 'dino'.*known: augreg_in1k"),
        ({"name": "vit_small_patch16_36x1_224", "pretrained": True}, "no published weights"),
        ({"name": "swin_tiny_patch4_window7_224"}, r"swin_transformer\) is no plain ViT"),
        ({"name": "resnet50", "pretrained": True}, "is no plain ViT"),
        ({"name": "cait_xxs24_224"}, "is no plain ViT"),
        ({"source": "open_clip", "name": "RN50", "pretrained": "openai"}, "no plain ViT"),
        ({"source": "open_clip", "name": "convnext_base"}, "is no plain ViT"),
        ({"source": "open_clip", "name": "vit-b-16"}, "did you mean 'ViT-B-16'"),
        (
            {"source": "open_clip", "name": "ViT-B-16", "pretrained": "opennai"},
            "no weights 'opennai' .*did you mean 'openai'",
        ),
        ({"image_size": 225}, "225 is no whole number of patches of 16 pixels; take 224 or 240"),
        ({"image_size": [224, 230]}, r"take 224 or \[224, 240\]"),
        ({"image_size": 8}, "take 16$"),
        ({"image_size": 225, "args": {"patch_size": 14}}, "of 14 pixels; take 224 or 238"),
        ({"source": "open_clip", "name": "ViT-B-16", "image_size": 225}, "take 224 or 240"),
        ({"source": "open_clip", "name": "ViT-B-16-SigLIP", "image_size": 225}, "224 or 240"),
        ({"source": "noise", "name": "base", "image_size": 225}, "take 224 or 240"),
        ({"source": "noise", "name": "bse"}, "did you mean 'base'"),
        ({"source": "demo", "name": "dinno"}, "did you mean 'dino'"),
        ({"args": {"num_head": 12}}, r"m\.args: .* no argument 'num_head' .*'num_heads'"),
        ({"args": {"embed_dim": 100, "num_heads": 12}}, "100 cannot be split among 12 heads"),
        ({"args": {"depth": "x"}}, r"args\.depth: found 'x'"),
    ],
)
def test_what_needs_no_network_to_be_known_is_said_when_planning(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as info:
        _check(**fields)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize(
    "fields",
    [
        {"name": f"{S16}.dino", "pretrained": True},
        {"name": "vit_so400m_patch14_siglip_384.webli", "pretrained": True, "image_size": 384},
        {"image_size": 225, "args": {"dynamic_img_pad": True}},
        {"image_size": 224, "args": {"patch_size": 14}},
        {"args": {"num_heads": 12, "reg_tokens": 4, "qkv_bias": False}},
        {"source": "open_clip", "name": "ViT-B-16", "pretrained": "openai", "image_size": 240},
        {"source": "open_clip", "name": "ViT-B-16-quickgelu", "pretrained": "openai"},
    ],
)
def test_what_is_right_passes(fields: dict[str, Any]) -> None:
    assert _check(**fields) == []


def test_the_catalogue_passes_and_nothing_of_it_imports_torch() -> None:
    """Planning is done hundreds of times; importing torch and timm takes seconds."""
    code = (
        "import sys; from vitfeat.models.entry import builtin_catalog; "
        "from vitfeat.models.entry_checks import check_entry; "
        "found = [line for e in builtin_catalog().values() for line in check_entry(e)]; "
        "assert found == [], found; "
        "assert not {'torch', 'timm', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- What the libraries' files say, held to the libraries ---


def test_every_architecture_of_timm_is_found_in_its_files() -> None:
    found = library_names.timm_modules()
    assert set(timm.list_models()) <= set(found)
    assert all(timm.is_model(name) for name in found)


def test_files_without_plain_vits_are_those_that_the_contract_refuses() -> None:
    modules = library_names.timm_modules()
    assert set(modules.values()) > library_names.NO_PLAIN_VITS
    for refused in REFUSED:
        if refused.source == "timm":
            assert modules[refused.name] in library_names.NO_PLAIN_VITS, refused.name
    for described in ACCEPTED:
        if described.source == "timm":
            assert modules[described.name] not in library_names.NO_PLAIN_VITS, described.name


def test_no_tag_is_taken_for_known_that_timm_does_not_know() -> None:
    """The other way round the library is asked."""
    known = set(timm.list_pretrained())
    for name, module in library_names.timm_modules().items():
        if module in ("vision_transformer", "beit", "deit"):
            tags = library_names.timm_tags(name)
            assert {f"{name}.{tag}" for tag, there in tags.items() if tag and there} <= known


def test_open_clips_names_and_tags_are_found_in_its_files() -> None:
    assert set(library_names.open_clip_configs()) == set(open_clip.list_models())
    for name in open_clip.list_models():
        tags = set(open_clip.list_pretrained_tags_by_model(name))
        assert library_names.open_clip_tags().get(name, frozenset()) == tags


def test_names_of_vitfeats_own_sources() -> None:
    assert _OWN_NAMES["demo"] == network.NAMES
    assert _OWN_NAMES["noise"] == tuple(noise._SIZES)


# --- Weight files ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hf" / "vit-s").mkdir(parents=True)
    for name in ("hf/vit-s/model.safetensors", "hf/vit-s/config.json", "w.pth", "ckpt_0100.pth"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "runs").mkdir()
    for epoch in (0, 20, 40):
        (tmp_path / "runs" / f"epoch{epoch:03}.pth").write_bytes(b"x")
    shards = '{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(shards)
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / "__0_0.distcp").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("hf/vit-s", "is a folder; name the weight file in it: .*hf/vit-s/model.safetensors$"),
        ("hf", "name one weight file; there are some in .*hf/vit-s$"),
        ("runs", "one of the weight files in it: epoch000.pth, epoch020.pth, epoch040.pth$"),
        ("empty", "it holds no weight file"),
        ("shards", "an index of weights in 2 files .*join them in one"),
        ("shards/model.safetensors.index.json", "an index of weights in 2 files .*join them in"),
        ("dcp", "a distributed checkpoint in several files; .*dcp_to_torch"),
        ("W.pth", "no checkpoint file .*did you mean 'w.pth'"),
        ("ckpt_0200.pth", "did you mean 'ckpt_0100.pth'"),
        ("run/epoch000.pth", "there is no .*/run .*did you mean 'runs'"),
        ("w.pth/x", r"w\.pth is no folder"),
        ("runs/model.bin", r"no checkpoint file .*runs has epoch000\.pth, "),
    ],
)
def test_what_is_no_weight_file_gives_the_one_that_may_be_meant(
    folder: Path, checkpoint: str, message: str
) -> None:
    """Row 28: a folder used to be "no checkpoint file", an absent one failed hours later."""
    fields = {"source": "checkpoint", "checkpoint": str(folder / checkpoint)}
    with pytest.raises(ConfigError, match=message) as info:
        _check(**fields)
    assert str(info.value).startswith("catalog.m.checkpoint: ")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("https://example.org/w.pth", "is an address; name a file .*published weights by 'weig"),
        ("s3://bucket/w.pth", "is an address"),
        ("hf-hub:timm/vit_small_patch16_224.dino", "is an address"),
        ("facebook/dino-vits16", "a repository of the model hub is named by 'weights'$"),
        ("absent/w.pth", "there is no absent$"),
    ],
)
def test_what_is_published_is_no_checkpoint(
    checkpoint: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        _check(checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("family", "known"),
    [("moco-v3-small", "moco"), ("DINO-V1", "dino"), ("Our DINOv2", "dinov2"), ("ours", None)],
)
def test_a_family_that_is_nearly_known_is_remarked(family: str, known: str | None) -> None:
    """Row 6: its heads and positions would be the library's without a word."""
    said = _check(weights="me/mine", family=family, normalisation="imagenet")
    assert said == [] if known is None else f"with family: {known} alone" in said[0]
    assert _check(family=family) == []


# --- Normalisation, as far as it is known ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, True),
        ({"family": "ours"}, True),
        ({"family": "supervised"}, True),
        ({"family": "dino"}, False),
        ({"family": "MoCo-v3"}, False),
        ({"normalisation": "imagenet"}, False),
        ({"name": f"{S16}.dino"}, False),
    ],
)
def test_a_normalisation_that_only_the_file_may_tell_is_said_when_planning(
    folder: Path, fields: dict[str, Any], said: bool
) -> None:
    checkpoint = {"source": "checkpoint", "checkpoint": str(folder / "w.pth")}
    found = _check(**checkpoint, **fields)
    assert bool(found) == said
    if said:
        assert "catalog.m.normalisation (imagenet, clip, half, or mean and std)" in found[0]


@pytest.mark.parametrize(
    ("weights", "said"), [("me/mine", True), ("timm/vit_small_patch16_224.dino", False)]
)
def test_fetched_weights_are_of_the_librarys_tag_or_need_a_normalisation(
    weights: str, said: bool
) -> None:
    assert bool(_check(weights=weights)) == said


def test_untrained_networks_need_none() -> None:
    assert _check(family="random") == []
    assert check_entry(builtin_catalog()["random-b16"]) == []
