"""Weights fitted into a model: against timm's own loading, and what must not pass in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import Tensor

from tests.models import published, reference_positions
from tests.models.published import SMALL, save
from tests.models.shrunk import stir
from vitfeat.errors import ModelError
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import Weights, load_backbone

SHRUNK = {"depth": 1, "embed_dim": 48, "num_heads": 3}

WAYS = {
    "timm": reference_positions.like_timm,
    "dino": reference_positions.like_dino,
    "mae": reference_positions.like_mae,
    "google": reference_positions.like_google,
}


def _native(name: str, folder: Path, **args: Any) -> tuple[str, dict[str, Tensor]]:
    """Save stirred weights of an architecture of its native size."""
    model = timm.create_model(name, num_classes=0, **{**SHRUNK, **args})
    stir(model, seed=3)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    path = folder / "native.pth"
    torch.save(state, path)
    return str(path), state


def _load(name: str, path: str, **fields: Any) -> Any:
    args = {**SHRUNK, **fields.pop("args", {})}
    entry = {"source": "checkpoint", "name": name, "checkpoint": path, "args": args}
    entry |= {"normalisation": "half", **fields}
    return load_backbone(ModelEntry.from_mapping("m", entry)).module


# --- Positions ---


@pytest.mark.parametrize("size", [[112, 448], [64, 96], [784, 64]], ids=str)
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("vit_tiny_patch16_224", "timm"),
        ("vit_tiny_patch16_224", "dino"),
        ("vit_base_patch16_siglip_224", "google"),
        ("eva02_base_patch16_clip_224", "mae"),
    ],
)
def test_positions_are_fitted_once(name: str, way: str, size: list[int], tmp_path: Path) -> None:
    """Also on 7 x 28 and 49 x 4, as many positions as the native 14 x 14: timm's filters would fit
    those once more.
    """
    path, state = _native(name, tmp_path)
    grid = (size[0] // 16, size[1] // 16)
    native = state["pos_embed"][0].double().numpy()
    n_prefix = len(native) - 14 * 14
    expected = reference_positions.with_prefix(native, (14, 14), grid, WAYS[way], n_prefix)
    found = _load(name, path, image_size=size, positions=way).pos_embed[0].double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_positions_that_were_trained_on_the_asked_grid_stay(tmp_path: Path) -> None:
    path, state = _native("vit_tiny_patch16_224", tmp_path, img_size=(112, 448))
    model = _load("vit_tiny_patch16_224", path, image_size=[112, 448], checkpoint_size=[112, 448])
    assert torch.equal(model.pos_embed, state["pos_embed"])


def test_a_table_is_fitted_once(tmp_path: Path) -> None:
    """(2 x 5 - 1)(2 x 41 - 1) offsets are as many as (2 x 14 - 1)^2."""
    name, table = "beit_base_patch16_224", "blocks.0.attn.relative_position_bias_table"
    path, state = _native(name, tmp_path)
    found = _load(name, path, image_size=[80, 656], family="beit").state_dict()[table]
    assert len(found) == len(state[table])
    offsets, extra = state[table][:-3].double().numpy(), state[table][-3:]
    expected = reference_positions.like_beit(offsets, (14, 14), (5, 41))
    np.testing.assert_allclose(found[:-3].double().numpy(), expected, atol=2e-5)
    assert torch.equal(found[-3:], extra)


@pytest.mark.parametrize("size", [[160, 96], [240, 240]], ids=str)
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", {}),
        ("flexivit_small", {}),
        ("vit_base_patch16_radio_v3", {}),
        ("deit3_small_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"patch_size": 16, "img_size": 224}),
        ("vit_base_patch16_siglip_224", {}),
        ("eva02_base_patch16_clip_224", {}),
        ("vit_medium_patch16_gap_240", {}),
    ],
)
def test_timms_way_is_timms_own_loading(
    name: str, args: dict[str, Any], size: list[int], tmp_path: Path
) -> None:
    path, _ = _native(name, tmp_path, **args)
    more = {k: v for k, v in args.items() if k != "img_size"}
    theirs: Any = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": path},
        num_classes=0,
        **{**SHRUNK, **more, "img_size": tuple(size)},
    ).eval()
    ours = _load(name, path, args=more, image_size=size, positions="timm")
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs.forward_features(images), ours.forward_features(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_images_smaller_than_a_patch(tmp_path: Path) -> None:
    path, _ = _native("vit_tiny_patch16_224", tmp_path)
    with pytest.raises(ModelError, match="smaller than a patch"):
        _load("vit_tiny_patch16_224", path, image_size=8)


def test_the_file_tells_the_way_where_the_family_does_not(tmp_path: Path) -> None:
    """A decoder makes it MAE's, whatever the entry's family is called."""
    content = published.mae(decoder=True)
    path = save(tmp_path / "w.pth", content)
    grid = (SMALL.grid + 2, SMALL.grid + 1)
    model = _load(
        "vit_base_patch16_224",
        path,
        args=SMALL.args,
        image_size=[side * SMALL.patch for side in grid],
        family="ours",
    )
    native = content["model"]["pos_embed"][0].double().numpy()
    expected = reference_positions.with_prefix(
        native, (SMALL.grid, SMALL.grid), grid, reference_positions.like_mae
    )
    np.testing.assert_allclose(model.pos_embed[0].double().numpy(), expected, atol=1e-5)


def test_registers_under_timms_names_resize_timms_way(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    path, state = _native(name, tmp_path, img_size=224)
    model = _load(name, path, image_size=[140, 112], family="dinov2")
    native = state["pos_embed"][0].double().numpy()
    expected = reference_positions.with_prefix(
        native, (16, 16), (10, 8), reference_positions.like_timm, 0
    )
    np.testing.assert_allclose(model.pos_embed[0].double().numpy(), expected, atol=1e-6)


# --- What no shape tells ---


def _pretend_fetched(monkeypatch: pytest.MonkeyPatch, path: Path, repository: str) -> None:
    weights = Weights(path, {"file": path.name, "repository": repository})
    monkeypatch.setattr("vitfeat.models.loading._weights", lambda *_: weights)


@pytest.mark.parametrize("quick", [False, True])
def test_weights_of_openai_need_their_activation(
    quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm has OpenAI's weights under names of either activation; no tensor tells."""
    name = f"vit_base_patch32_clip_{'quickgelu_' if quick else ''}224"
    path, _ = _native(name, tmp_path)
    _pretend_fetched(monkeypatch, Path(path), "timm/vit_base_patch32_clip_224.openai")
    entry = ModelEntry(id="m", source="timm", name=name, args=SHRUNK, pretrained=True)
    if quick:
        assert load_backbone(entry).weights["repository"].endswith(".openai")
    else:
        with pytest.raises(ModelError, match=r"QuickGELU.*'quickgelu' in its name"):
            load_backbone(entry)


def test_a_tag_of_open_clip_brings_activation_and_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = "ViT-S-32-alt", tmp_path / "w.pth"
    visual: Any = open_clip.create_model(name).visual
    torch.save({f"visual.{k}": v for k, v in visual.state_dict().items()}, path)
    _pretend_fetched(monkeypatch, path, "owner/name")
    tag = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    found = load_backbone(ModelEntry(id="m", source="open_clip", name=name, pretrained="tag"))
    assert (found.mean, found.std) == (tag["mean"], tag["std"])
    kinds = {type(m).__name__ for m in found.module.modules()}
    assert "QuickGELU" in kinds


def test_a_tag_without_quick_gelu_is_no_architecture_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = _native("vit_tiny_patch16_224", tmp_path)
    _pretend_fetched(monkeypatch, Path(path), "owner/name")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"mean": (0.5, 0.5, 0.5)})
    with pytest.raises(ModelError, match=r"take the architecture ViT-B-32$"):
        load_backbone(
            ModelEntry(id="m", source="open_clip", name="ViT-B-32-quickgelu", pretrained="laion")
        )


@pytest.mark.parametrize(
    ("family", "fits"),
    [
        ("dino", True),
        ("DINO", True),
        ("ours", True),
        ("dinov2", False),
        ("dinov3", False),
        ("moco", False),
        ("MoCo", False),
    ],
)
def test_a_family_is_held_to_the_files(family: str, fits: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "d.pth", published.dino_full())
    fields = {"args": SMALL.args, "image_size": SMALL.image_size, "family": family}
    if fits:
        assert _load("vit_base_patch16_224", path, **fields) is not None
    else:
        with pytest.raises(ModelError, match=r"family dino .*, not "):
            _load("vit_base_patch16_224", path, **fields)


_UNFIT: dict[str, Callable[[Tensor], Tensor]] = {
    "int8": lambda t: t.to(torch.int8),
    "uint8": lambda t: t.to(torch.uint8).flatten()[: t.numel() // 2, None],  # two in a byte
    "int64": lambda t: t.long(),
    "bool": lambda t: t > 0,
    "complex64": lambda t: t.to(torch.complex64),
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "float8_e5m2": lambda t: t.to(torch.float8_e5m2),
    "qint8": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "float32, sparse": lambda t: t.to_sparse(),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, on its own odd types
@pytest.mark.parametrize("key", ["blocks.0.mlp.fc1.weight", "blocks.0.attn.qkv.weight"])
@pytest.mark.parametrize("kind", _UNFIT)
def test_weights_of_no_type_of_weights_are_named(kind: str, key: str, tmp_path: Path) -> None:
    """Row 27: an int8 state dict used to be asked for its checkpoint_size."""
    path, state = _native("vit_tiny_patch16_224", tmp_path)
    torch.save({**state, key: _UNFIT[kind](state[key])}, path)
    with pytest.raises(ModelError) as info:
        _load("vit_tiny_patch16_224", path)
    message = str(info.value)
    assert f"holds weights of the type {kind}" in message
    assert key in message
    assert "save the network's own state dict in float32" in message
    assert "checkpoint_size" not in message


def test_a_network_whose_weights_are_all_quantised_is_one_line(tmp_path: Path) -> None:
    path, state = _native("vit_tiny_patch16_224", tmp_path)
    torch.save({k: v.mul(100).to(torch.int8) for k, v in state.items()}, path)
    with pytest.raises(ModelError, match=r"type int8 \(\S+ and \d+ more\)") as info:
        _load("vit_tiny_patch16_224", path)
    assert len(str(info.value)) < 600


@pytest.mark.parametrize(
    "beside",
    ["blocks.0.attn.qkv.qweight", "blocks.0.attn.qkv.zero_point", "blocks.0.attn.qkv.SCB"],
)
def test_what_quantisers_leave_beside_weights_is_recognised(beside: str, tmp_path: Path) -> None:
    path, state = _native("vit_tiny_patch16_224", tmp_path)
    del state["blocks.0.attn.qkv.weight"]
    torch.save({**state, beside: torch.ones(3)}, path)
    with pytest.raises(ModelError, match="it is quantised; save the network's own state dict"):
        _load("vit_tiny_patch16_224", path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_numbers_are_weights(kind: torch.dtype, tmp_path: Path) -> None:
    path, state = _native("vit_tiny_patch16_224", tmp_path)
    torch.save({k: v.to(kind) for k, v in state.items()}, path)
    found = _load("vit_tiny_patch16_224", path).state_dict()
    assert all(torch.equal(found[k], v.to(kind).float()) for k, v in state.items())


def test_a_size_that_arguments_overrule(tmp_path: Path) -> None:
    entry = ModelEntry(
        id="m",
        source="open_clip",
        name="ViT-S-32-alt",
        image_size=96,
        args={"vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32}},
    )
    with pytest.raises(ModelError, match=r"image_size 96 was asked for.* takes 64 x 64"):
        load_backbone(entry)


def test_what_a_key_or_a_prefix_leaves_out_is_noted(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pth.tar", published.moco())
    entry = {
        **{"source": "checkpoint", "name": "vit_base_patch16_224", "checkpoint": path},
        **{"args": SMALL.args, "image_size": SMALL.image_size},
        **{"checkpoint_key": "state_dict", "checkpoint_prefix": "module.base_encoder."},
    }
    lines = load_backbone(ModelEntry.from_mapping("m", entry)).notes
    left = next(line for line in lines if "left out" in line)
    assert "module.momentum_encoder (" in left
    assert "module.predictor (" in left
