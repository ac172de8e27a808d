"""Which network a file holds, and by which names: on dictionaries of tiny tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.models.layouts import find_network
from vitfeat.models.timm_names import to_timm_names

PATCH = "patch_embed.proj.weight"
HF_PATCH = "embeddings.patch_embeddings.projection.weight"


def _state(*keys: str, prefix: str = "", width: int = 48) -> dict[str, Tensor]:
    return {prefix + key: torch.zeros(1, 1, width) for key in (PATCH, "cls_token", *keys)}


@pytest.mark.parametrize(
    ("content", "family"),
    [
        (_state(), None),
        ({"teacher": _state("head.mlp.0.weight", prefix="backbone.")}, "dino"),
        (
            {"teacher": {**_state(prefix="backbone."), "dino_head.w": torch.zeros(1)}},
            "dino",
        ),
        (
            {"teacher": {**_state("mask_token", prefix="backbone."), "dino_head.w": torch.ones(1)}},
            "dinov2",
        ),
        ({"state_dict": _state(prefix="module.base_encoder.")}, "moco"),
        (_state("rel_pos_bias.relative_position_bias_table"), "beit"),
        (_state("blocks.0.attn.relative_position_bias_table"), None),
        ({"model": _state("decoder_pos_embed")}, "mae"),
        (_state("storage_tokens"), "dinov3"),
        (
            {"target_encoder": _state(prefix="module."), "encoder": _state(prefix="module.")},
            "ijepa",
        ),
        ({"visual.conv1.weight": torch.ones(1), "visual.class_embedding": torch.ones(1)}, "clip"),
    ],
)
def test_families_that_keys_tell(content: Any, family: str | None) -> None:
    assert find_network(content).family == family


@pytest.mark.parametrize(("width", "heads"), [(384, 12), (768, 12), (1024, None), (48, None)])
def test_mocos_heads_are_told_for_its_published_sizes(width: int, heads: int | None) -> None:
    content = {"state_dict": _state(prefix="module.base_encoder.", width=width)}
    assert find_network(content).heads == heads


def test_the_copy_that_its_authors_evaluate_is_taken() -> None:
    student, teacher = _state(prefix="module.backbone."), _state("norm.bias", prefix="backbone.")
    found = find_network({"student": student, "teacher": teacher, "epoch": 3})
    assert (found.place, set(found.state)) == (
        "teacher backbone.",
        {PATCH, "cls_token", "norm.bias"},
    )
    assert found.left == {"student": 2}
    assert find_network({"student": student, "teacher": teacher}, "student").left == {"teacher": 3}


def test_an_optimizer_is_no_network() -> None:
    content = {"model": _state(), "optimizer": {"state": _state()}, "optimizer_ema": _state()}
    assert find_network(content).left == {}


def test_openais_sizes_tell_its_clip() -> None:
    clip = {"visual.conv1.weight": torch.ones(1), "visual.class_embedding": torch.ones(1)}
    sizes = {k: torch.tensor(1) for k in ("input_resolution", "context_length", "vocab_size")}
    assert find_network({**clip, **sizes}).is_openai
    assert not find_network(clip).is_openai


def test_several_networks_and_none() -> None:
    with pytest.raises(ModelError, match=r"several networks \(a, b\); set checkpoint_key"):
        find_network({"a": _state(), "b": _state()})
    with pytest.raises(ModelError, match=r"no Vision Transformer under a known name .*\(a, b\)"):
        find_network({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}})
    with pytest.raises(ModelError, match="holds no tensors;"):
        find_network({"a": 1})


def test_an_entry_stands_for_what_is_nested_in_it() -> None:
    content = {"ema": {"module": _state()}, "net": {"module": _state()}}
    assert find_network(content, "ema").place == find_network(content, "ema.module").place
    with pytest.raises(ModelError, match=r"no entry 'em' \(checkpoint_key\); found: ema, net"):
        find_network(content, "em")


def test_a_landmark_is_a_whole_word_of_its_key() -> None:
    found = find_network({"my_patch_embed.proj.weight": torch.ones(1), "other": torch.ones(1)})
    assert found.layout == "other"


@pytest.mark.parametrize(
    ("theirs", "timms"),
    [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.distillation_token", "dist_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.register_tokens", "register_tokens"),
        ("embeddings.mask_token", "mask_token"),
        ("encoder.layer.3.attention.output.dense.bias", "blocks.3.attn.proj.bias"),
        ("encoder.layer.3.intermediate.dense.weight", "blocks.3.mlp.fc1.weight"),
        ("encoder.layer.3.output.dense.weight", "blocks.3.mlp.fc2.weight"),
        ("encoder.layer.3.layernorm_before.bias", "blocks.3.norm1.bias"),
        ("encoder.layer.3.layernorm_after.bias", "blocks.3.norm2.bias"),
        ("encoder.layer.3.lambda_2", "blocks.3.gamma_2"),
        ("encoder.layer.3.layer_scale1.lambda1", "blocks.3.ls1.gamma"),
        ("encoder.layer.3.mlp.weights_in.weight", "blocks.3.mlp.w12.weight"),
        ("encoder.layer.3.mlp.weights_out.bias", "blocks.3.mlp.w3.bias"),
        ("layernorm.weight", "norm.weight"),
        ("pooler.layernorm.weight", "fc_norm.weight"),
        (
            "encoder.layer.3.attention.attention.relative_position_bias.relative_position_bias_table",
            "blocks.3.attn.relative_position_bias_table",
        ),
        (
            "encoder.relative_position_bias.relative_position_bias_table",
            "rel_pos_bias.relative_position_bias_table",
        ),
    ],
)
def test_transformers_names(theirs: str, timms: str) -> None:
    found = find_network({f"vit.{HF_PATCH}": torch.zeros(1), f"vit.{theirs}": torch.ones(1)})
    assert found.layout == "transformers"
    assert set(to_timm_names(found)) == {PATCH, timms}


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        (("query", "key", "value"), {"qkv.weight", "qkv.bias"}),
        (("query", "value"), {"qkv.weight", "q_bias", "v_bias"}),
        ((), {"qkv.weight"}),
    ],
)
def test_queries_keys_and_values_are_joined(biases: tuple[str, ...], expected: set[str]) -> None:
    start = "encoder.layer.0.attention.attention."
    weights = {f"{start}{p}.weight": torch.full((2, 2), i) for i, p in enumerate(("query", "key"))}
    weights[f"{start}value.weight"] = torch.full((2, 2), 2)
    state = {
        HF_PATCH: torch.zeros(1),
        **weights,
        **{f"{start}{b}.bias": torch.ones(2) for b in biases},
    }
    named = to_timm_names(find_network(state))
    assert {k.removeprefix("blocks.0.attn.") for k in named} == expected | {PATCH}
    assert named["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_missing_part_is_named() -> None:
    start = "encoder.layer.0.attention.attention."
    state = {HF_PATCH: torch.zeros(1), f"{start}query.weight": torch.zeros(2, 2)}
    with pytest.raises(ModelError, match=r"not whole: .*blocks\.0\.attn\.key\.weight"):
        to_timm_names(find_network(state))
