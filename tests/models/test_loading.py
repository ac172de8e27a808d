from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.shrunk import noise, stir, timm_entry
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone


@pytest.fixture(scope="module")
def trained() -> Backbone:
    """A model whose weights no seed gives."""
    backbone = load_backbone(timm_entry())
    stir(backbone.module, seed=7)
    return backbone


@pytest.fixture(scope="module")
def weights(trained: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained.module.state_dict().items()}


def _error(**changes: Any) -> str:
    with pytest.raises(ModelError) as info:
        load_backbone(timm_entry(**changes))
    message = str(info.value)
    assert "\n" not in message
    assert message.startswith("model small-plain: ")
    return message


def _saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


# --- Architectures ---


def test_backbones_are_for_evaluation() -> None:
    backbone = load_backbone(timm_entry())
    assert not backbone.module.training
    assert not any(p.requires_grad for p in backbone.module.parameters())


def test_an_unknown_architecture_gives_the_nearest() -> None:
    message = _error(name="vit_tinny_patch16_224")
    assert "timm knows no architecture 'vit_tinny_patch16_224'" in message
    assert "did you mean 'vit_tiny_patch16_224'?" in message


def test_an_unknown_open_clip_architecture_gives_the_nearest() -> None:
    entry = ModelEntry(id="m", source="open_clip", name="ViT-B-33")
    with pytest.raises(ModelError, match=r"no architecture 'ViT-B-33' \(did you mean 'ViT-B-32'"):
        load_backbone(entry)


def test_an_unknown_demo_model_names_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"no demo model 'dinno': use one of supervised, clip"):
        load_backbone(ModelEntry(id="m", source="demo", name="dinno"))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1), "embed_dim": 24}),
        ("resnet18", {}),
    ],
)
def test_what_is_no_plain_vit_is_refused(name: str, args: dict[str, Any]) -> None:
    message = _error(name=name, args=args, image_size=None)
    assert f"({name}) is not a plain ViT" in message


def test_an_open_clip_model_without_a_vit_is_refused() -> None:
    entry = ModelEntry(id="m", source="open_clip", name="RN50")
    with pytest.raises(ModelError, match=r"the image tower of RN50 .* is not a plain ViT"):
        load_backbone(entry)


@pytest.mark.parametrize("args", [{"no_such": 1}, {"embed_dim": 48, "num_heads": 5}])
def test_arguments_that_the_architecture_refuses(args: dict[str, Any]) -> None:
    assert "vit_tiny_patch16_224 could not be built" in _error(args=args)


def test_published_weights_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The library reads the environment when it is imported, which it is already.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    entry = timm_entry(
        name="vit_tiny_patch16_224.augreg_in21k", pretrained=True, args={}, image_size=None
    )
    with pytest.raises(ModelError) as info:
        load_backbone(entry, folder=tmp_path / "w")
    message = str(info.value)
    assert "repository timm/vit_tiny_patch16_224.augreg_in21k" in message
    assert "not on this machine" in message
    assert f"{tmp_path}/w/small-plain/model.safetensors" in message


def test_normalisation_is_the_entrys_or_the_models_own() -> None:
    # timm publishes these with the architecture; DINOv2 is normalised by ImageNet's.
    assert load_backbone(timm_entry()).mean == (0.5, 0.5, 0.5)
    assert load_backbone(timm_entry("registers")).mean == (0.485, 0.456, 0.406)
    given = load_backbone(timm_entry(normalisation="imagenet"))
    assert (given.mean, given.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# --- Untrained networks ---


def test_seeds_decide_the_weights_and_nothing_else() -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first, again = (load_backbone(timm_entry(seed=1)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(321)
    third = load_backbone(timm_entry(seed=1))
    other = load_backbone(timm_entry(seed=2))
    assert first.weights_sha256() == again.weights_sha256() == third.weights_sha256()
    assert first.weights_sha256() != other.weights_sha256()


def test_the_fingerprint_sees_every_weight(weights: dict[str, Tensor]) -> None:
    backbone = load_backbone(timm_entry())
    stir(backbone.module, seed=7)
    expected = backbone.weights_sha256()
    assert len(expected) == 64
    for name in weights:
        tensor = backbone.module.state_dict()[name].view(-1)
        kept = tensor[-1].item()
        tensor[-1] = kept + 1
        assert backbone.weights_sha256() != expected, name
        tensor[-1] = kept
    assert backbone.weights_sha256() == expected


# --- Checkpoints ---


@pytest.mark.parametrize("kind", ["safetensors", "pth", "pth.tar"])
def test_checkpoints_give_the_same_features(
    trained: Backbone, weights: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    loaded = load_backbone(timm_entry(checkpoint=str(path)))
    assert loaded.weights_sha256() == trained.weights_sha256()
    images = noise(trained, 2)
    with torch.no_grad():
        assert torch.equal(loaded.forward(images), trained.forward(images))


def test_a_key_a_prefix_and_what_is_no_backbone(
    trained: Backbone, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {
        "epoch": 300,
        "state_dict": {
            **{f"module.encoder.{name}": tensor for name, tensor in weights.items()},
            "module.encoder.head.weight": torch.zeros(10, 48),
            "module.encoder.mask_token": torch.zeros(1, 1, 48),
            "module.momentum.cls_token": torch.zeros(1, 1, 48),
            "module.predictor.weight": torch.zeros(3),
        },
    }
    loaded = load_backbone(
        timm_entry(
            checkpoint=_saved(tmp_path / "w.pth", content),
            checkpoint_key="state_dict",
            checkpoint_prefix="module.encoder.",
        )
    )
    assert loaded.weights_sha256() == trained.weights_sha256()


def test_notes_say_what_was_left_out_renamed_and_interpolated(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {
        "teacher": {f"backbone.{name}": tensor for name, tensor in weights.items()},
        "student": {"module.backbone.cls_token": torch.zeros(1, 1, 48)},
    }
    content["teacher"]["head.mlp.0.weight"] = torch.zeros(3, 3)
    path = _saved(tmp_path / "w.pth", content)
    backbone = load_backbone(timm_entry(checkpoint=path, image_size=96, family="dino"))
    assert backbone.notes == [
        "small-plain: 30 tensors under timm's names at teacher backbone., 0 renamed",
        "small-plain: left out, no part of the backbone: head.mlp (1), student (1)",
        "small-plain: interpolated: pos_embed 4 x 4 -> 6 x 6 (dino)",
    ]


def test_a_backbone_knows_its_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = _saved(tmp_path / "w.pth", weights)
    loaded = load_backbone(timm_entry(checkpoint=path))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert loaded.weights == {"file": "w.pth", "sha256": digest}
    assert load_backbone(timm_entry()).weights == {}


def test_several_networks_in_a_file_are_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in weights.items()}
    path = _saved(tmp_path / "w.pth", {"model": weights, "model_ema": other})
    message = _error(checkpoint=path)
    assert "several networks (model, model_ema); set checkpoint_key" in message
    chosen = load_backbone(timm_entry(checkpoint=path, checkpoint_key="model_ema"))
    assert torch.equal(chosen.module.state_dict()["norm.bias"], other["norm.bias"])


def test_the_source_checkpoint_finds_the_library(
    trained: Backbone, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _saved(tmp_path / "w.pth", weights)
    loaded = load_backbone(timm_entry(source="checkpoint", checkpoint=path))
    assert loaded.weights_sha256() == trained.weights_sha256()
    message = _error(source="checkpoint", checkpoint=path, name="ViT-B-33")
    assert "neither timm nor open_clip knows an architecture 'ViT-B-33'" in message
    assert "did you mean 'ViT-B-32'?" in message


def test_buffers_that_are_not_saved_count_in_the_fingerprint() -> None:
    backbone = load_backbone(timm_entry("relative-bias"))
    before = backbone.weights_sha256()
    name, buffer = next(
        (n, b) for n, b in backbone.module.named_buffers() if n not in backbone.module.state_dict()
    )
    buffer[(0,) * buffer.ndim] += 1
    assert backbone.weights_sha256() != before, name


def test_a_wrong_key_names_those_of_the_file(tmp_path: Path) -> None:
    path = _saved(tmp_path / "w.pth", {"teacher": {}, "student": {}})
    message = _error(checkpoint=path, checkpoint_key="model")
    assert "no entry 'model' (checkpoint_key); found: teacher, student" in message


def test_a_wrong_prefix(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = _saved(tmp_path / "w.pth", weights)
    assert "holds no tensors under the prefix 'module.'" in _error(
        checkpoint=path, checkpoint_prefix="module."
    )


def test_missing_keys(weights: dict[str, Tensor], tmp_path: Path) -> None:
    some = {name: t for name, t in weights.items() if not name.startswith("blocks.1.norm")}
    message = _error(checkpoint=_saved(tmp_path / "w.pth", some))
    assert "keys 4 missing (blocks.1.norm1.bias, blocks.1.norm1.weight, " in message


def test_unexpected_keys(weights: dict[str, Tensor], tmp_path: Path) -> None:
    more = {**weights, "blocks.2.norm1.weight": torch.ones(48)}
    message = _error(checkpoint=_saved(tmp_path / "w.pth", more))
    assert "keys 1 unexpected (blocks.2.norm1.weight)" in message
    assert "if these are no part of the network (of a loss, say), save its state dict" in message


def test_wrong_shapes(weights: dict[str, Tensor], tmp_path: Path) -> None:
    wrong = {**weights, "blocks.0.mlp.fc1.weight": torch.zeros(192, 24)}
    message = _error(checkpoint=_saved(tmp_path / "w.pth", wrong))
    assert "1 of another shape (blocks.0.mlp.fc1.weight (192, 24) for (192, 48))" in message


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (1, 2, 3), (1, 2, 3, 4)])
def test_misshapen_weights_never_end_in_a_traceback(
    weights: dict[str, Tensor], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """timm's filters index into shapes before anybody has checked them."""
    for name in ("pos_embed", "cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.bias"):
        path = _saved(tmp_path / "w.pth", {**weights, name: torch.zeros(shape)})
        _error(checkpoint=path)


def test_patches_of_another_size_are_not_resampled(tmp_path: Path) -> None:
    args = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8}
    other = load_backbone(timm_entry(args=args))
    path = _saved(tmp_path / "w.pth", other.module.state_dict())
    assert "has patches of (8, 8) pixels, vit_tiny_patch16_224 of (16, 16)" in _error(
        checkpoint=path
    )


def test_positions_are_resized_to_the_asked_image(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _saved(tmp_path / "w.pth", weights)  # of 64 pixels, 4 x 4 patches
    larger = load_backbone(timm_entry(checkpoint=path, image_size=96))
    assert larger.grid == (6, 6)
    found = larger.module.state_dict()["pos_embed"]
    assert found.shape == (1, 37, 48)
    assert torch.equal(found[:, 0], weights["pos_embed"][:, 0])


_UNREADABLE = {
    "text.pth": b"not a checkpoint\nat all\n",
    "empty.pth": b"",
    "empty.safetensors": b"",
    "text.safetensors": b"not a checkpoint, though long enough for a header\n",
    "pickle.pkl": pickle.dumps({"a": 1}, protocol=2),
}


@pytest.mark.parametrize("name", sorted(_UNREADABLE))
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(_UNREADABLE[name])
    message = _error(checkpoint=str(path))
    assert str(path) in message
    assert not message.rstrip().endswith(":"), "the reason is missing"


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_checkpoints(
    weights: dict[str, Tensor], tmp_path: Path, kind: str, share: float
) -> None:
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "is not a readable" in _error(checkpoint=str(path))


@pytest.mark.parametrize("content", [{"a": 1}, {}])
def test_files_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    message = _error(checkpoint=_saved(tmp_path / "w.pth", content))
    assert "holds no tensors; set checkpoint_key and checkpoint_prefix" in message


@pytest.mark.parametrize(
    ("content", "kind"), [([1, 2], "list"), ((3, {}), "tuple"), (torch.zeros(3), "Tensor")]
)
def test_files_of_something_else_say_of_what(tmp_path: Path, content: Any, kind: str) -> None:
    message = _error(checkpoint=_saved(tmp_path / "w.pth", content))
    assert f"holds a {kind} and no mapping of names to tensors; save the network's" in message


def test_an_absent_file(tmp_path: Path) -> None:
    message = _error(checkpoint=str(tmp_path / "absent.pth"))
    assert f"no checkpoint file {tmp_path}/absent.pth" in message
    assert "catalog.small-plain.checkpoint" in message


class _Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_checkpoint_runs_no_code(weights: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    victim, path = tmp_path / "owned", tmp_path / "w.pth"
    content = {**weights, "extra": _Malicious(victim)}
    if kind == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": _Malicious(victim)}, protocol=2))
    message = _error(checkpoint=str(path))
    assert not victim.exists()
    # torch's own message advises to switch the protection off.
    assert "weights_only" not in message
    assert "can run code" in message
    # The file would have been made: the test can fail.
    pickle.loads(pickle.dumps(_Malicious(victim)))
    assert victim.exists()
