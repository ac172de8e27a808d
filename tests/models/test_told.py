"""What file and family tell of a network beyond shapes, held to passes written from the papers.

Rows 6, 7, 8, 21, 22 and 23 of what once went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from tests.models import published, reference_positions, reference_vit
from tests.models.loaded import assert_sees, entry_of, images
from tests.models.published import SMALL, Size, save
from tests.models.shrunk import stir
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import NORMALISATIONS, ModelEntry, builtin_catalog
from vitfeat.models.loading import Weights, load_backbone

VIT = "vit_base_patch16_224"
DINOV2 = "vit_small_patch14_dinov2"
BEIT = "beit_base_patch16_224"

State = dict[str, Tensor]

# MoCo-v3's ViT-S, but for its depth.
MOCO_S = Size(depth=2, width=384, heads=12)


def _load(path: str, name: str = VIT, family: str = "other", **changes: Any) -> Backbone:
    return load_backbone(entry_of(path, name, family, **changes))


# --- Heads ---


def _linear_probe(path: Path) -> str:
    """MoCo-v3's main_lincls.py: the encoder in DataParallel, and a head of its own."""
    state = published.moco_encoder(MOCO_S) | {
        "head.weight": torch.zeros(10, 384),
        "head.bias": torch.zeros(10),
    }
    content = {"epoch": 90, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    return save(path, content)


def _moco_s(path: str, family: str, **args: int) -> ModelEntry:
    fields = {
        "source": "checkpoint",
        "name": "vit_small_patch16_224",
        "checkpoint": path,
        "family": family,
        "args": {"depth": MOCO_S.depth, **args},
        "image_size": MOCO_S.image_size,
    }
    return ModelEntry.from_mapping("m", fields)


@pytest.mark.parametrize("family", ["moco", "MoCo-v3", "mocov3"])
def test_a_linear_probe_of_mocos_small_vit_has_the_familys_twelve_heads(
    family: str, tmp_path: Path
) -> None:
    backbone = load_backbone(_moco_s(_linear_probe(tmp_path / "w.pth.tar"), family))
    assert backbone.heads == 12
    batch = images(MOCO_S)
    seen = reference_vit.vit(published.moco_encoder(MOCO_S), batch.double(), 12)
    assert_sees(backbone, seen, batch)
    assert any("12 attention heads, as published ones of moco" in line for line in backbone.notes)


def test_mocos_fixed_positions_tell_its_heads_under_any_family(tmp_path: Path) -> None:
    entry = _moco_s(_linear_probe(tmp_path / "w.pth"), "ours").but(normalisation="half")
    backbone = load_backbone(entry)
    assert backbone.heads == 12
    assert any("its positions tell" in line for line in backbone.notes)


def test_heads_that_the_entry_says_stay_and_are_noted(tmp_path: Path) -> None:
    backbone = load_backbone(_moco_s(_linear_probe(tmp_path / "w.pth"), "moco", num_heads=6))
    assert backbone.heads == 6
    assert "m: 6 attention heads, as args say; published ones of moco: 12" in backbone.notes


def test_learned_positions_tell_no_heads(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.plain(replace(MOCO_S, heads=6)))
    entry = _moco_s(path, "dino").but(normalisation="half")
    assert load_backbone(entry).heads == 6


def test_a_width_of_its_own_needs_its_heads(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.plain())
    fields = {"source": "checkpoint", "name": VIT, "checkpoint": path, "args": {"embed_dim": 48}}
    with pytest.raises(Exception, match="'embed_dim' needs 'num_heads' beside it"):
        ModelEntry.from_mapping("m", fields)


# --- Norms ---


def test_a_network_fine_tuned_on_mean_tokens_has_its_norm_there(tmp_path: Path) -> None:
    """MAE's fine-tuning: fc_norm in the place of norm."""
    state = published.mae()["model"]
    for part in ("weight", "bias"):
        state[f"fc_norm.{part}"] = state.pop(f"norm.{part}")
    backbone = _load(save(tmp_path / "w.pth", {"model": state}), family="mae")
    batch = images(SMALL)
    seen = reference_vit.vit(state, batch.double(), SMALL.heads)
    assert_sees(backbone, seen, batch)
    norm = backbone.final_norm
    assert norm is not None
    assert norm.pooled
    np.testing.assert_array_equal(norm.scale, state["fc_norm.weight"].numpy())


def test_clips_norms_are_not_those_of_a_plain_vit(tmp_path: Path) -> None:
    clip = published.clip()
    for key in ("input_resolution", "context_length", "vocab_size"):
        del clip[key]
    path = save(tmp_path / "w.pt", clip)
    args = {"patch_size": published.SMALL_CLIP.patch, "pre_norm": True, "qkv_bias": True}
    with pytest.raises(ModelError, match=r"epsilon of 1e-05; those of .* have 1e-06: take an arch"):
        _load(path, family="clip", size=published.SMALL_CLIP, args=args)


# --- Positions at another size, whatever the family is called ---

GRIDS = [(6, 6), (3, 5)]


def _fitted(native: Tensor, way: Any, grid: tuple[int, int], n_prefix: int = 1) -> np.ndarray:
    old = (SMALL.grid, SMALL.grid)
    numbers = native[0].double().numpy()
    return reference_positions.with_prefix(numbers, old, grid, way, n_prefix)


def _deit3() -> State:
    state = published.plain()
    state["pos_embed"] = state["pos_embed"][:, 1:]
    for i in range(SMALL.depth):
        for number in (1, 2):
            state[f"blocks.{i}.gamma_{number}"] = torch.full((SMALL.width,), 0.5)
    return state


def _ibot_student() -> State:
    return published.plain() | {"masked_embed": torch.zeros(1, SMALL.width)}


def _ijepa() -> State:
    return published.ijepa_encoder()


_CODE: dict[str, tuple[str, Callable[[], State], dict[str, Any], Any, int]] = {
    "dinov2": (DINOV2, published.dinov2, {"patch_size": 16}, reference_positions.like_dino, 1),
    "dinov2-transformers": (
        DINOV2,
        lambda: published.transformers_dinov2(published.dinov2()),
        {"patch_size": 16},
        reference_positions.like_dino,
        1,
    ),
    # timm's file of it has no mask token; then the architecture's name tells.
    "dinov2-timm": (
        DINOV2,
        lambda: {k: v for k, v in published.dinov2().items() if k != "mask_token"},
        {"patch_size": 16},
        reference_positions.like_dino,
        1,
    ),
    "deit3": ("deit3_base_patch16_224", _deit3, {}, reference_positions.like_mae, 0),
    "ibot": (VIT, _ibot_student, {}, reference_positions.like_dino, 1),
    "mae": (VIT, lambda: published.mae()["model"], {}, reference_positions.like_mae, 1),
    "ijepa": (
        VIT,
        _ijepa,
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        reference_positions.like_mae,
        0,
    ),
}


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("family", ["other", "Ours 2", "clip", "supervised"])
@pytest.mark.parametrize("code", _CODE)
def test_positions_are_fitted_as_the_code_does_that_a_files_tensors_tell(
    code: str, family: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    name, make, args, way, n_prefix = _CODE[code]
    state = make()
    path = save(tmp_path / "w.pth", state)
    size = [side * SMALL.patch for side in grid]
    found: Any = _load(path, name, family, args=args, image_size=size).module
    native = state.get("pos_embed", state.get("embeddings.position_embeddings"))
    assert native is not None
    expected = _fitted(native, way, grid, n_prefix)
    np.testing.assert_allclose(found.pos_embed[0].double().numpy(), expected, atol=2e-6)


def test_dinov2s_features_at_another_size_are_those_of_its_own_code(tmp_path: Path) -> None:
    """A plain backbone under no family used to be fitted timm's way: CLS moved by 3.9 %."""
    state = published.dinov2()
    path = save(tmp_path / "w.pth", state)
    backbone = _load(path, DINOV2, args={"patch_size": 16}, image_size=[96, 80])
    positions = torch.from_numpy(_fitted(state["pos_embed"], reference_positions.like_dino, (6, 5)))
    batch = images(SMALL, grid=(6, 5))
    seen = reference_vit.vit(state, batch.double(), SMALL.heads, positions[None])
    assert_sees(backbone, seen, batch)


def test_mocos_positions_are_computed_anew_under_any_family(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.moco_encoder())
    found: Any = _load(path, image_size=[96, 80]).module
    expected = published.sincos_positions(SMALL.width, 6, 5, row_first=True)
    torch.testing.assert_close(found.pos_embed[0, 1:], expected, atol=1e-6, rtol=0)


def test_beits_tables_are_fitted_its_way_under_any_family(tmp_path: Path) -> None:
    args = {"depth": 1, "embed_dim": 48, "num_heads": 3, "img_size": 64}
    model = timm.create_model(BEIT, num_classes=0, **args)
    stir(model, seed=3)
    key = "blocks.0.attn.relative_position_bias_table"
    table = model.state_dict()[key].clone()
    path = save(tmp_path / "w.pth", dict(model.state_dict()))
    found = _load(path, BEIT, "ours", size=replace(SMALL, depth=1), image_size=[96, 80])
    expected = reference_positions.like_beit(table.double().numpy(), (4, 4), (6, 5))
    np.testing.assert_allclose(found.module.state_dict()[key].double(), expected, atol=2e-5)


def test_registers_are_fitted_timms_way_whatever_the_family(tmp_path: Path) -> None:
    state = published.dinov2(registers=4)
    path = save(tmp_path / "w.pth", state)
    name = "vit_small_patch14_reg4_dinov2"
    found: Any = _load(path, name, "dinov2", args={"patch_size": 16}, image_size=96).module
    expected = _fitted(state["pos_embed"], reference_positions.like_timm, (6, 6))[1:]
    np.testing.assert_allclose(found.pos_embed[0].double().numpy(), expected, atol=2e-6)


def test_the_entry_overrules_what_a_file_tells(tmp_path: Path) -> None:
    state = published.dinov2()
    path = save(tmp_path / "w.pth", state)
    args = {"patch_size": 16}
    found: Any = _load(path, DINOV2, args=args, image_size=96, positions="mae").module
    expected = _fitted(state["pos_embed"], reference_positions.like_mae, (6, 6))
    np.testing.assert_allclose(found.pos_embed[0].double().numpy(), expected, atol=2e-6)


# --- Keys ---

_WRAPPED: dict[str, Callable[[str], str]] = {
    "compiled blocks": lambda k: k.replace("blocks.1.", "blocks.1._orig_mod."),
    "all compiled": lambda k: f"_orig_mod.{k}",
    "DataParallel of a compiled": lambda k: f"module._orig_mod.{k}",
    "compiled embedding": lambda k: k.replace("patch_embed.", "patch_embed._orig_mod."),
    "compiled attention": lambda k: k.replace(".attn.", ".attn._orig_mod."),
    "FSDP": lambda k: (
        "_fsdp_wrapped_module." + k.replace("blocks.0.", "blocks.0._fsdp_wrapped_module.")
    ),
    "FSDP with checkpoints": lambda k: (
        "_fsdp_wrapped_module."
        + k.replace("blocks.2.", "blocks.2._fsdp_wrapped_module._checkpoint_wrapped_module.")
    ),
    "fairscale": lambda k: k.replace("blocks.0.", "blocks.0._fpw_module.module."),
    "Lightning": lambda k: f"_forward_module.model.backbone.{k}",
}


@pytest.mark.parametrize("wrapped", _WRAPPED)
def test_what_wrappers_put_into_keys_is_dropped_and_noted(wrapped: str, tmp_path: Path) -> None:
    plain = published.dino_backbone()
    expected = _load(save(tmp_path / "plain.pth", plain)).weights_sha256()
    state = {_WRAPPED[wrapped](key): tensor for key, tensor in plain.items()}
    backbone = _load(save(tmp_path / "w.pth", {"model": state}))
    assert backbone.weights_sha256() == expected
    inside = wrapped not in ("all compiled", "DataParallel of a compiled", "Lightning")
    assert any("as left there by wrappers" in line for line in backbone.notes) == inside


def test_wrapped_keys_of_a_named_prefix(tmp_path: Path) -> None:
    plain = published.dino_backbone()
    expected = _load(save(tmp_path / "plain.pth", plain)).weights_sha256()
    state = {f"module.net._orig_mod.{k}": v for k, v in plain.items()}
    state |= {f"module.ema.{k}": v + 1 for k, v in plain.items()}
    path = save(tmp_path / "w.pth", state)
    for prefix in ("module.net._orig_mod.", "module.net.", "net."):
        backbone = _load(path, checkpoint_prefix=prefix)
        assert backbone.weights_sha256() == expected, prefix
        assert any("module.ema (30)" in x or "module.ema" in x for x in backbone.notes), prefix


def test_a_tensor_that_is_there_twice_is_named(tmp_path: Path) -> None:
    state = published.dino_backbone()
    state["blocks.0._orig_mod.norm1.weight"] = torch.ones(SMALL.width)
    with pytest.raises(ModelError, match=r"holds blocks\.0\.norm1\.weight twice, as "):
        _load(save(tmp_path / "w.pth", state))


def test_flattened_parameters_are_named(tmp_path: Path) -> None:
    state = {"_fsdp_wrapped_module._flat_param": torch.zeros(1000)}
    with pytest.raises(ModelError, match=r"FSDP's flattened parameters .* save the full"):
        _load(save(tmp_path / "w.pth", {"model": state}))


def _in_chunks(state: State, per_chunk: int, *, anew: bool) -> State:
    """Put blocks into chunks: numbered through, as DINOv2 does, or anew in each."""
    found = {}
    for key, tensor in state.items():
        if key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            number = int(block)
            inner = number % per_chunk if anew else number
            key = f"blocks.{number // per_chunk}.{inner}.{rest}"
        found[key] = tensor
    return found


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("per_chunk", [1, 2, 3])
def test_blocks_in_chunks_are_numbered_through(per_chunk: int, anew: bool, tmp_path: Path) -> None:
    """DINOv2 trained with block_chunks: its teacher, chunks of the student compiled and wrapped."""
    size = replace(SMALL, depth=5)
    state = published.dinov2(size)
    chunked = _in_chunks(state, per_chunk, anew=anew)
    content = {
        "teacher": {
            **{f"backbone.{k}": v for k, v in chunked.items()},
            "dino_head.mlp.0.weight": torch.zeros(3, 3),
        }
    }
    path = save(tmp_path / "w.pth", content)
    backbone = _load(path, DINOV2, "dinov2", size=size, args={"patch_size": 16})
    batch = images(size)
    assert_sees(backbone, reference_vit.vit(state, batch.double(), size.heads), batch)
    assert any("numbered through" in line for line in backbone.notes)


def test_chunks_of_wrapped_blocks(tmp_path: Path) -> None:
    state = published.dinov2()
    chunked = {
        k.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): v
        for k, v in _in_chunks(state, 2, anew=False).items()
    }
    backbone = _load(save(tmp_path / "w.pth", chunked), DINOV2, args={"patch_size": 16})
    batch = images(SMALL)
    assert_sees(backbone, reference_vit.vit(state, batch.double(), SMALL.heads), batch)


# --- Training checkpoints, and what is no backbone ---


def _dinov3_training(state: State, tokens: bool = True) -> dict[str, Any]:
    backbone = {k: v for k, v in state.items() if tokens or k != "storage_tokens"}
    heads = {"dino_head.mlp.0.weight": torch.zeros(3, 3), "ibot_head.last_layer.w": torch.ones(2)}
    teacher = {f"backbone.{k}": v for k, v in backbone.items()} | heads
    return {"teacher": teacher, "iteration": 1000}


def test_a_training_checkpoint_of_dinov3_is_dinov3(tmp_path: Path) -> None:
    """Its teacher has the heads and the mask token of DINOv2, and used to be taken for it."""
    state = published.dinov3()
    path = save(tmp_path / "teacher_checkpoint.pth", _dinov3_training(state))
    backbone = _load(path, "vit_small_patch16_dinov3_qkvb", "dinov3")
    batch = images(SMALL)
    assert_sees(backbone, reference_vit.dinov3(state, batch.double(), SMALL.heads), batch)
    with pytest.raises(ModelError, match=r"of the family dinov3 .* not dinov2"):
        _load(path, "vit_small_patch16_dinov3_qkvb", "dinov2")


def test_dinov3_without_storage_tokens_is_told_by_its_rotary_periods(tmp_path: Path) -> None:
    content = _dinov3_training(published.dinov3(), tokens=False)
    path = save(tmp_path / "w.pth", content)
    args = {"num_reg_tokens": 0}
    backbone = _load(path, "vit_small_patch16_dinov3_qkvb", "dinov3", args=args)
    assert backbone.n_registers == 0
    state = published.dinov3()
    state["storage_tokens"] = state["storage_tokens"][:, :0]
    batch = images(SMALL)
    assert_sees(backbone, reference_vit.dinov3(state, batch.double(), SMALL.heads), batch)


def test_the_teacher_is_taken_among_gram_teacher_student_and_average(tmp_path: Path) -> None:
    state = published.dinov3()
    model = {}
    for part, change in (("student", 1), ("teacher", 0), ("gram_teacher", 2), ("model_ema", 3)):
        model |= {f"{part}.backbone.{k}": v + change for k, v in state.items()}
    model["teacher.dino_head.w"] = torch.zeros(2)
    backbone = _load(save(tmp_path / "w.pth", {"model": model}), "vit_small_patch16_dinov3_qkvb")
    batch = images(SMALL)
    assert_sees(backbone, reference_vit.dinov3(state, batch.double(), SMALL.heads), batch)


@pytest.mark.parametrize("shared_head", [True, False])
def test_beit_v2_as_pretrained_leaves_out_what_its_cls_token_learnt_with(
    shared_head: bool, tmp_path: Path
) -> None:
    content = published.beit()
    more = {
        key.replace("blocks.", "cls_pt_layers."): tensor
        for key, tensor in content["model"].items()
        if key.startswith(("blocks.0.", "blocks.1."))
    }
    if not shared_head:
        more |= {"cls_pt_norm.weight": torch.ones(48), "cls_pt_lm_head.weight": torch.ones(9, 48)}
    path = save(tmp_path / "w.pth", {"model": content["model"] | more})
    backbone = _load(path, "beitv2_base_patch16_224", "beit")
    batch = images(SMALL)
    assert_sees(backbone, reference_vit.beit(content["model"], batch.double(), SMALL.heads), batch)
    left = next(line for line in backbone.notes if "left out" in line)
    assert "cls_pt_layers.0 (" in left
    assert "cls_pt_layers.1 (" in left


@pytest.mark.parametrize(
    "beside",
    [
        "head.mlp.0.weight",
        "projector.0.weight",
        "projection_head.layers.0.weight",
        "predictor.mlp.weight",
        "prototypes.weight",
        "decoder.0.weight",
        "decoder_blocks.0.norm1.weight",
        "mask_token",
        "masked_embed",
        "lm_head.0.weight",
        "queue",
        "text_model.embeddings.weight",
        "logit_scale",
        "fc.0.weight",
        "classifier.weight",
        "contrastive_head.weight",
    ],
)
def test_what_training_keeps_beside_the_blocks_is_left_out_and_said(
    beside: str, tmp_path: Path
) -> None:
    plain = published.dino_backbone()
    path = save(tmp_path / "w.pth", plain | {beside: torch.zeros(3, 2, 1)})
    backbone = _load(path)
    assert backbone.weights_sha256() == _load(save(tmp_path / "p.pth", plain)).weights_sha256()
    left = next(line for line in backbone.notes if "left out" in line)
    assert beside.split(".")[0] in left


@pytest.mark.parametrize(
    "inside",
    ["reg_token", "norm_pre.weight", "blocks.0.adapter.weight", "rel_pos_bias.weight", "gate"],
)
def test_what_may_stand_in_the_way_of_tokens_is_never_left_out(inside: str, tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.dino_backbone() | {inside: torch.zeros(3)})
    with pytest.raises(ModelError, match=rf"unexpected \({inside}\)"):
        _load(path)


_KINDS: dict[str, tuple[str, Callable[[], State]]] = {
    "dinov2": (DINOV2, published.dinov2),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", published.dinov3),
    "beit": (BEIT, lambda: published.beit()["model"]),
    "moco": (VIT, lambda: {f"base_encoder.{k}": v for k, v in published.moco_encoder().items()}),
    "transformers": (VIT, lambda: published.transformers_vit(published.plain())),
    "clip": ("vit_base_patch32_clip_quickgelu_224", published.clip),
    "deit3": ("deit3_base_patch16_224", _deit3),
}


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("kind", _KINDS)
def test_misshapen_tensors_of_any_layout_are_one_line(
    kind: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    name, make = _KINDS[kind]
    path = save(tmp_path / "w.pth", {key: torch.zeros(shape) for key in make()})
    with pytest.raises(ModelError) as info:
        _load(path, name)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("vision_model.embeddings.patch_embedding.weight", "transformers' names of CLIP or SigL"),
        ("conv_proj.weight", "torchvision's names, which vitfeat does not read"),
        ("embeddings.patch_embeddings.weight", "transformers' names of DINOv3"),
        ("backbone.patch_embed.projection.weight", "the names of OpenMMLab's toolboxes"),
    ],
)
def test_layouts_that_are_not_read_are_named(key: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        _load(save(tmp_path / "w.pth", {key: torch.zeros(48, 3, 16, 16)}))


def test_adapters_that_were_not_merged_are_named(tmp_path: Path) -> None:
    state = published.plain() | {"blocks.0.attn.qkv.lora_A.default.weight": torch.zeros(2, 48)}
    with pytest.raises(ModelError, match="LoRA's adapters; merge them"):
        _load(save(tmp_path / "w.pth", state))


# --- Normalisation ---

HALF, IMAGENET, CLIP = (NORMALISATIONS[name] for name in ("half", "imagenet", "clip"))


def _normalised(path: str, name: str = VIT, **fields: Any) -> Backbone:
    fields = {"normalisation": None, "family": "other", **fields}
    return _load(path, name, fields.pop("family"), **fields)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    return save(tmp_path / "plain.pth", published.plain())


@pytest.mark.parametrize("family", ["other", "ours", "supervised"])
def test_a_checkpoint_of_which_nobody_tells_the_normalisation_is_refused(
    plain: str, family: str
) -> None:
    """timm's default of an architecture's name used to be taken without a word."""
    with pytest.raises(ModelError) as info:
        _normalised(plain, family=family)
    message = str(info.value)
    assert "set catalog.m.normalisation to what the weights were trained with" in message
    assert "imagenet, clip, half, or mean and std" in message
    assert f"timm's {VIT} has " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("dino", IMAGENET),
        ("iBOT", IMAGENET),
        ("mae", IMAGENET),
        ("clip", CLIP),
        ("siglip2", HALF),
        ("beit", HALF),
        ("BEiT v2", IMAGENET),
        ("EVA-02", CLIP),
        ("DeiT III", IMAGENET),
    ],
)
def test_a_familys_normalisation_is_taken_and_said(
    plain: str, family: str, expected: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    backbone = _normalised(plain, family=family)
    assert (backbone.mean, backbone.std) == expected
    assert "told by the family " in backbone.normalisation


_TELLING: dict[str, tuple[str, Callable[[], Any], str, dict[str, Any], Any]] = {
    "dino": ("w.pth", published.dino_full, VIT, {}, IMAGENET),
    "moco": ("w.pth", published.moco, VIT, {}, IMAGENET),
    "mae": ("w.pth", lambda: published.mae(decoder=True), VIT, {}, IMAGENET),
    "google": ("w.npz", published.google, VIT, {}, HALF),
    "dinov2": ("w.pth", published.dinov2, DINOV2, {"patch_size": 16}, IMAGENET),
    "dinov3": ("w.pth", published.dinov3, "vit_small_patch16_dinov3_qkvb", {}, IMAGENET),
    "ijepa": ("w.pth", published.ijepa, VIT, _CODE["ijepa"][2], IMAGENET),
}


@pytest.mark.parametrize("file", _TELLING)
def test_a_file_whose_keys_tell_its_normalisation_needs_none(file: str, tmp_path: Path) -> None:
    suffix, make, name, args, expected = _TELLING[file]
    backbone = _normalised(save(tmp_path / suffix, make()), name, args=args)
    assert (backbone.mean, backbone.std) == expected
    assert "told by the file's keys" in backbone.normalisation


def test_openais_clip_is_normalised_as_openai_says(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pt", published.clip())
    size = published.SMALL_CLIP
    name = "vit_base_patch32_clip_quickgelu_224"
    backbone = _normalised(path, name, size=size, args={"patch_size": size.patch})
    assert (backbone.mean, backbone.std) == CLIP


@pytest.mark.parametrize("file", ["beit", "mae", "clip"])
def test_keys_that_models_of_several_normalisations_share_tell_none(
    file: str, tmp_path: Path
) -> None:
    name, args, size = VIT, {}, SMALL
    content: Any = published.mae()
    if file == "beit":
        name, content = BEIT, published.beit()
    if file == "clip":
        name, size = "vit_base_patch32_clip_quickgelu_224", published.SMALL_CLIP
        content = published.open_clip_weights(published.clip())
        args = {"patch_size": size.patch}
    with pytest.raises(ModelError, match=r"set catalog\.m\.normalisation"):
        _normalised(save(tmp_path / "w.pth", content), name, size=size, args=args)


def test_the_tag_of_a_name_tells_it(plain: str) -> None:
    dino = _normalised(plain, f"{VIT}.dino")
    assert (dino.mean, dino.std) == IMAGENET
    assert f"told by timm's {VIT}.dino" in dino.normalisation
    assert (_normalised(plain, f"{VIT}.augreg_in21k").mean) == HALF[0]


def test_several_that_do_not_agree_are_named(plain: str) -> None:
    with pytest.raises(ModelError, match=r"imagenet by the family dino; half by timm's .*augreg"):
        _normalised(plain, f"{VIT}.augreg_in21k", family="dino")
    own = _normalised(plain, f"{VIT}.augreg_in21k", family="dino", normalisation="clip")
    assert (own.mean, own.std) == CLIP
    assert own.normalised_by == "the entry"


def test_weights_that_timm_publishes_are_normalised_as_it_says(
    plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the family is called: DINOv3's satellite models have their own."""
    origin = {"file": "model.safetensors", "repository": f"timm/{VIT}.dino"}
    weights = Weights(Path(plain), origin)
    monkeypatch.setattr("vitfeat.models.loading._weights", lambda *_: weights)
    fields = {"args": SMALL.args, "image_size": SMALL.image_size, "family": "siglip2"}
    by_repository = ModelEntry(
        id="m", source="timm", name=VIT, weights=f"timm/{VIT}.dino", **fields
    )
    by_tag = ModelEntry(id="m", source="timm", name=f"{VIT}.dino", pretrained=True, **fields)
    for entry in (by_repository, by_tag):
        backbone = load_backbone(entry)
        assert (backbone.mean, backbone.std) == IMAGENET
        assert "whose weights these are" in backbone.normalisation


def test_an_untrained_network_has_its_librarys_and_says_so() -> None:
    entry = ModelEntry(
        id="m", source="timm", name=VIT, args=SMALL.args, image_size=SMALL.image_size
    )
    backbone = load_backbone(entry)
    assert (backbone.mean, backbone.std) == HALF
    assert backbone.normalisation == (
        f"mean 0.5, 0.5, 0.5; std 0.5, 0.5, 0.5; told by timm's {VIT}, which is untrained"
    )


def test_every_model_of_the_catalogue_is_normalised_as_its_entry_says() -> None:
    for entry in builtin_catalog().values():
        told = entry.told_normalisation()
        assert entry.source in ("demo", "noise") or "the entry" in told, entry.id


def test_what_families_are_normalised_by_is_what_the_catalogue_and_timm_say() -> None:
    for entry in builtin_catalog().values():
        if entry.source in ("demo", "noise") or entry.family in ("random", "supervised"):
            continue
        told = entry.but(normalisation=None).told_normalisation()
        assert list(told.values()) == [entry.normalisation_values()], entry.id
    for name in ("beitv2_base_patch16_224.in1k_ft_in22k", "vit_base_patch16_siglip_224.webli"):
        tag: Any = timm.get_pretrained_cfg(name)
        family = "beit" if name.startswith("beit") else "siglip"
        entry = ModelEntry(id="m", source="timm", name=name, family=family)
        assert list(entry.told_normalisation().values()) == [(tag.mean, tag.std)]


# --- Every published file, under no family ---


@pytest.mark.parametrize("family", ["dino", "ours"])
def test_what_a_plain_file_gives_does_not_depend_on_what_its_family_is_called(
    plain: str, family: str
) -> None:
    expected = _load(plain, family="supervised").weights_sha256()
    assert _load(plain, family=family).weights_sha256() == expected
