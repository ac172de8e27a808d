"""Published weight files, in every layout, against forward passes written from the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import published, reference_vit
from tests.models.loaded import SMALL_OPEN_CLIP, assert_sees, entry_of, images, small_open_clip
from tests.models.published import SMALL, SMALL_CLIP, VIT_B16, VIT_S16, Size, save
from tests.models.reference_vit import Seen
from vitfeat.errors import ModelError
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.loading import load_backbone
from vitfeat.models.taps import collect

VIT = "vit_base_patch16_224"
CLIP = "vit_base_patch32_clip_quickgelu_224"

BEIT_ARGS = {
    "use_rel_pos_bias": False,
    "use_shared_rel_pos_bias": True,
    "global_pool": "token",
}
CLIP_ARGS = {"patch_size": SMALL_CLIP.patch}
IJEPA_ARGS = {"class_token": False, "global_pool": "avg", "fc_norm": False}

# By its names in timm, DINOv2 has patches of 14 pixels.
DINOV2_ARGS = {"patch_size": SMALL.patch}


def refusal(entry: ModelEntry) -> str:
    """Give the one line with which an entry is refused."""
    with pytest.raises(ModelError) as info:
        load_backbone(entry)
    message = str(info.value)
    assert "\n" not in message
    assert len(message) < 600
    # What Python or PyTorch says when it stumbles is no help.
    assert "NoneType" not in message
    assert "invalid for input" not in message
    return message


# --- Every layout and container ---


@dataclass(frozen=True)
class Case:
    """A published file: how it is written, what loads it, and what it must give."""

    name: str
    family: str
    write: Callable[[Path], str]
    see: Callable[[Tensor], Seen]
    args: dict[str, Any] = field(default_factory=dict)
    size: Size = SMALL
    more: dict[str, Any] = field(default_factory=dict)

    def entry(self, folder: Path) -> ModelEntry:
        path = self.write(folder)
        return entry_of(path, self.name, self.family, self.size, args=self.args, **self.more)


def _writes(file: str, make: Callable[[], Any]) -> Callable[[Path], str]:
    return lambda folder: save(folder / file, make())


def _vit(make: Callable[[], dict[str, Tensor]]) -> Callable[[Tensor], Seen]:
    return lambda batch: reference_vit.vit(make(), batch, SMALL.heads)


def _beit(batch: Tensor) -> Seen:
    return reference_vit.beit(published.beit()["model"], batch, SMALL.heads)


def _clip(half: bool = False) -> Callable[[Tensor], Seen]:
    return lambda batch: reference_vit.clip(published.clip(half=half), batch, SMALL_CLIP.heads)


def _google(representation: int | None = None) -> Callable[[Tensor], Seen]:
    return lambda batch: reference_vit.google(
        published.google(representation=representation), batch
    )


def _dinov3(**changes: bool) -> Callable[[Tensor], Seen]:
    return lambda batch: reference_vit.dinov3(published.dinov3(**changes), batch, SMALL.heads)


_DINO = _vit(published.dino_backbone)
_MAE = _vit(lambda: published.mae()["model"])
_MOCO = _vit(published.moco_encoder)
_DINOV2 = _vit(published.dinov2)
_REGISTERS = _vit(lambda: published.dinov2(registers=4))

CASES: dict[str, Case] = {
    "dino": Case(VIT, "dino", _writes("dino.pth", published.dino_backbone), _DINO),
    "dino-full": Case(VIT, "dino", _writes("full.pth", published.dino_full), _DINO),
    "dino-student": Case(
        VIT,
        "dino",
        _writes("full.pth", published.dino_full),
        _vit(lambda: published.dino_backbone(seed=1)),
        more={"checkpoint_key": "student"},
    ),
    "mae": Case(VIT, "mae", _writes("mae.pth", published.mae), _MAE),
    "mae-decoder": Case(VIT, "mae", _writes("v.pth", lambda: published.mae(decoder=True)), _MAE),
    "moco": Case(VIT, "moco", _writes("moco.pth.tar", published.moco), _MOCO),
    "moco-momentum": Case(
        VIT,
        "moco",
        _writes("moco.pth.tar", published.moco),
        _vit(lambda: published.moco_encoder(seed=1)),
        more={"checkpoint_prefix": "module.momentum_encoder."},
    ),
    "beit": Case(
        "beit_base_patch16_224", "beit", _writes("beit.pth", published.beit), _beit, BEIT_ARGS
    ),
    "beit-transformers": Case(
        "beit_base_patch16_224",
        "beit",
        _writes(
            "model.safetensors", lambda: published.transformers_beit(published.beit()["model"])
        ),
        _beit,
        BEIT_ARGS,
    ),
    "beit-transformers-index": Case(
        "beit_base_patch16_224",
        "beit",
        _writes(
            "pytorch_model.bin",
            lambda: published.transformers_beit(published.beit()["model"], index=True),
        ),
        _beit,
        BEIT_ARGS,
    ),
    "clip": Case(CLIP, "clip", _writes("c.pt", published.clip), _clip(), CLIP_ARGS, SMALL_CLIP),
    "clip-half": Case(
        CLIP,
        "clip",
        _writes("c.pt", lambda: published.clip(half=True)),
        _clip(half=True),
        CLIP_ARGS,
        SMALL_CLIP,
    ),
    "clip-torchscript": Case(
        CLIP,
        "clip",
        lambda folder: published.save_torchscript(folder / "c.pt", published.clip(half=True)),
        _clip(half=True),
        CLIP_ARGS,
        SMALL_CLIP,
    ),
    "clip-open-clip": Case(
        CLIP,
        "clip",
        _writes("w.safetensors", lambda: published.open_clip_weights(published.clip())),
        _clip(),
        CLIP_ARGS,
        SMALL_CLIP,
    ),
    "clip-open-clip-training": Case(
        CLIP,
        "clip",
        _writes("epoch_32.pt", lambda: published.open_clip_checkpoint(published.clip())),
        _clip(),
        CLIP_ARGS,
        SMALL_CLIP,
    ),
    "google": Case(VIT, "supervised", _writes("a.npz", published.google), _google()),
    "google-representation": Case(
        VIT,
        "supervised",
        _writes("a.npz", lambda: published.google(representation=20)),
        _google(20),
    ),
    "vit-transformers": Case(
        VIT,
        "supervised",
        _writes("model.safetensors", lambda: published.transformers_vit(published.plain())),
        _DINO,
    ),
    "vit-transformers-bare": Case(
        VIT,
        "supervised",
        _writes(
            "pytorch_model.bin",
            lambda: published.transformers_vit(published.plain(), classifier=False),
        ),
        _DINO,
    ),
    "dinov2": Case(
        "vit_small_patch14_dinov2",
        "dinov2",
        _writes("d.pth", published.dinov2),
        _DINOV2,
        DINOV2_ARGS,
    ),
    "dinov2-registers": Case(
        "vit_small_patch14_reg4_dinov2",
        "dinov2",
        _writes("d.pth", lambda: published.dinov2(registers=4)),
        _REGISTERS,
        DINOV2_ARGS,
    ),
    "dinov2-transformers": Case(
        "vit_small_patch14_dinov2",
        "dinov2",
        _writes("model.safetensors", lambda: published.transformers_dinov2(published.dinov2())),
        _DINOV2,
        DINOV2_ARGS,
    ),
    "dinov2-registers-transformers": Case(
        "vit_small_patch14_reg4_dinov2",
        "dinov2",
        _writes(
            "model.safetensors",
            lambda: published.transformers_dinov2(published.dinov2(registers=4)),
        ),
        _REGISTERS,
        DINOV2_ARGS,
    ),
    "dinov3": Case(
        "vit_small_patch16_dinov3_qkvb",
        "dinov3",
        _writes("d.pth", published.dinov3),
        _dinov3(),
    ),
    "dinov3-exact-periods": Case(
        "vit_small_patch16_dinov3_qkvb",
        "dinov3",
        _writes("d.pth", lambda: published.dinov3(rounded=False)),
        _dinov3(rounded=False),
    ),
    "dinov3-zero-biases": Case(
        "vit_small_patch16_dinov3",
        "dinov3",
        _writes("d.pth", lambda: published.dinov3(rounded=False, biased=False)),
        _dinov3(rounded=False, biased=False),
    ),
    "ijepa": Case(
        VIT,
        "ijepa",
        _writes("i.pth.tar", published.ijepa),
        _vit(published.ijepa_encoder),
        IJEPA_ARGS,
    ),
    "ijepa-context": Case(
        VIT,
        "ijepa",
        _writes("i.pth.tar", published.ijepa),
        _vit(lambda: published.ijepa_encoder(seed=1)),
        IJEPA_ARGS,
        more={"checkpoint_key": "encoder"},
    ),
    "deit-distilled": Case(
        "deit_base_distilled_patch16_224",
        "supervised",
        _writes("d.pth", published.deit_distilled),
        _vit(lambda: published.deit_distilled()["model"]),
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_a_published_file_gives_what_its_paper_says(case: Case, tmp_path: Path) -> None:
    backbone = load_backbone(case.entry(tmp_path))
    batch = images(case.size)
    assert_sees(backbone, case.see(batch.double()), batch)


def test_taps_agree_with_timms_own_way_to_intermediates(case: Case, tmp_path: Path) -> None:
    backbone = load_backbone(case.entry(tmp_path))
    batch = images(case.size)
    found = collect(backbone, batch, ["tokens"])["tokens"]
    module: Any = backbone.module
    with torch.inference_mode():
        layers = module.forward_intermediates(
            batch, norm=False, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    assert len(layers) == backbone.depth
    for layer, own in enumerate(layers):
        tokens = torch.cat([own[1], own[0]], 1) if isinstance(own, tuple) else own
        torch.testing.assert_close(found[:, layer], tokens, rtol=1e-5, atol=1e-5)


def test_what_is_no_backbone_stays_out(tmp_path: Path) -> None:
    """A decoder, a projector or a predictor changes nothing and is not there."""
    case = CASES["mae"]
    alone = load_backbone(case.entry(tmp_path))
    path = save(tmp_path / "both.pth", published.mae(decoder=True))
    both = load_backbone(alone.entry.but(checkpoint=path))
    assert both.weights_sha256() == alone.weights_sha256()
    assert not any("decoder" in name for name in both.module.state_dict())


def test_the_teacher_is_not_the_student(tmp_path: Path) -> None:
    full = published.dino_full()
    path = save(tmp_path / "full.pth", full)
    by_default = load_backbone(entry_of(path, VIT, "dino"))
    teacher = load_backbone(entry_of(path, VIT, "dino", checkpoint_key="teacher"))
    student = load_backbone(entry_of(path, VIT, "dino", checkpoint_key="student"))
    assert by_default.weights_sha256() == teacher.weights_sha256() != student.weights_sha256()


def test_the_shared_bias_needs_no_arguments(tmp_path: Path) -> None:
    """timm's BEiT by itself has a table in each block, and is made for fine-tuned files."""
    path = save(tmp_path / "beit.pth", published.beit())
    backbone = load_backbone(entry_of(path, "beit_base_patch16_224", "beit"))
    batch = images(SMALL)
    assert_sees(backbone, _beit(batch.double()), batch)


# --- CLIP through both libraries ---


@pytest.fixture(scope="module", autouse=True)
def open_clip_knows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_open_clip(tmp_path_factory.mktemp("open_clip")):
        yield


CLIP_FILES = [name for name in CASES if name.startswith("clip")]


def _open_clip_entry(path: str, **changes: Any) -> ModelEntry:
    fields = {"source": "open_clip", "name": SMALL_OPEN_CLIP, "family": "clip", "checkpoint": path}
    return ModelEntry.from_mapping("m", {**fields, **changes})


@pytest.mark.parametrize("file", CLIP_FILES)
@pytest.mark.parametrize("source", ["open_clip", "checkpoint"])
def test_clip_through_open_clip(file: str, source: str, tmp_path: Path) -> None:
    case = CASES[file]
    backbone = load_backbone(_open_clip_entry(case.write(tmp_path), source=source))
    batch = images(SMALL_CLIP)
    assert_sees(backbone, case.see(batch.double()), batch)


@pytest.mark.parametrize("file", CLIP_FILES)
def test_both_libraries_give_the_same_of_one_clip_file(file: str, tmp_path: Path) -> None:
    entry = CASES[file].entry(tmp_path)
    batch = images(SMALL_CLIP)
    timm = collect(load_backbone(entry), batch)
    own = collect(load_backbone(_open_clip_entry(str(entry.checkpoint))), batch)
    for tap in ("tokens", "attention"):
        torch.testing.assert_close(timm[tap], own[tap], rtol=1e-5, atol=1e-5)


def test_clip_needs_its_activation(tmp_path: Path) -> None:
    """An architecture with the exact GELU is another model; the sizes in the file tell."""
    entry = CASES["clip"].entry(tmp_path).but(name="vit_base_patch32_clip_224")
    assert "QuickGELU" in refusal(entry)


# --- Real sizes ---


def _of_catalogue(model_id: str, path: str) -> ModelEntry:
    """The catalogue's entry, its weights in a local file."""
    return builtin_catalog()[model_id].but(checkpoint=str(path), weights=None, pretrained=False)


@pytest.mark.slow
def test_moco_s16_of_the_catalogue(tmp_path: Path) -> None:
    path = save(tmp_path / "vit-s-300ep.pth.tar", published.moco(VIT_S16))
    backbone = load_backbone(_of_catalogue("moco-s16", path))
    assert (backbone.depth, backbone.heads, backbone.width) == (12, 12, 384)
    batch = images(VIT_S16, 1)
    seen = reference_vit.vit(published.moco_encoder(VIT_S16), batch.double(), VIT_S16.heads)
    assert_sees(backbone, seen, batch)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_beit_b16_of_the_catalogue(layout: str, tmp_path: Path) -> None:
    content = published.beit(VIT_B16)
    state = content["model"]
    if layout == "transformers":
        path = save(tmp_path / "model.safetensors", published.transformers_beit(state))
    else:
        path = save(tmp_path / "beit_base_patch16_224_pt22k.pth", content)
    backbone = load_backbone(_of_catalogue("beit-b16", path))
    assert (backbone.depth, backbone.heads, backbone.width) == (12, 12, 768)
    batch = images(VIT_B16, 1)
    assert_sees(backbone, reference_vit.beit(state, batch.double(), VIT_B16.heads), batch)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"args": {"num_heads": 6}}], ids=["default", "six"])
def test_mocos_small_vit_never_runs_with_six_heads(changes: dict[str, Any], tmp_path: Path) -> None:
    """No shape tells the number of heads; timm's ViT-S has 6, MoCo-v3's 12."""
    path = save(tmp_path / "vit-s-300ep.pth.tar", published.moco(VIT_S16))
    fields = {
        "source": "checkpoint",
        "name": "vit_small_patch16_224",
        "family": "moco",
        "checkpoint": path,
        **changes,
    }
    found = _heads_or_refusal(ModelEntry.from_mapping("m", fields))
    assert found == 12 or (isinstance(found, str) and "12" in found and "head" in found)


def _heads_or_refusal(entry: ModelEntry) -> int | str:
    try:
        return load_backbone(entry).heads
    except ModelError as error:
        return str(error)


# --- Wrong files are refused ---


FAMILY_FILES: dict[str, Callable[[Path], str]] = {
    "dino": _writes("dino_full.pth", published.dino_full),
    "moco": _writes("moco.pth.tar", published.moco),
    "mae": _writes("mae.pth", lambda: published.mae(decoder=True)),
    "ijepa": _writes("ijepa.pth.tar", published.ijepa),
}


@pytest.mark.parametrize(
    ("holds", "asked"),
    [("moco", "dino"), ("dino", "moco"), ("mae", "moco"), ("mae", "dino"), ("ijepa", "dino")],
)
def test_a_file_of_another_family_is_refused(holds: str, asked: str, tmp_path: Path) -> None:
    path = FAMILY_FILES[holds](tmp_path)
    args = IJEPA_ARGS if holds == "ijepa" else {}
    message = refusal(entry_of(path, VIT, asked, args=args)).lower()
    assert Path(path).name in message
    told = message.replace(Path(path).name, "").replace("-", "")
    assert holds in told
    assert asked in told


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_beit_is_no_plain_vit(layout: str, tmp_path: Path) -> None:
    content: Any = published.beit()
    if layout == "transformers":
        content = published.transformers_beit(content["model"])
    path = save(tmp_path / "beit.pth", content)
    assert "beit.pth" in refusal(entry_of(path, VIT, "beit"))


def test_a_plain_vit_is_no_beit(tmp_path: Path) -> None:
    path = save(tmp_path / "dino.pth", published.dino_backbone())
    entry = entry_of(path, "beit_base_patch16_224", "beit", args=BEIT_ARGS)
    assert "dino.pth" in refusal(entry)


def test_registers_are_not_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "d.pth", published.dinov2(registers=4))
    entry = entry_of(path, "vit_small_patch14_dinov2", "dinov2", args=DINOV2_ARGS)
    assert "reg" in refusal(entry).partition("d.pth")[2]


def test_registers_are_not_made_up(tmp_path: Path) -> None:
    path = save(tmp_path / "d.pth", published.dinov2())
    entry = entry_of(path, "vit_small_patch14_reg4_dinov2", "dinov2", args=DINOV2_ARGS)
    # The architecture's name says it too.
    assert "reg" in refusal(entry).partition("d.pth")[2].replace(entry.name, "")


def test_layer_scale_is_not_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "d.pth", published.dinov2())
    assert "d.pth" in refusal(entry_of(path, VIT, "dinov2"))


@pytest.mark.parametrize("part", [0, 2], ids=["queries", "values"])
def test_biases_of_dinov3_are_not_dropped(part: int, tmp_path: Path) -> None:
    """timm has DINOv3 without biases of queries and values too: then these must be zero."""
    state = published.dinov3(biased=False)
    for key, bias in state.items():
        if key.endswith("qkv.bias"):
            bias.chunk(3)[part].fill_(0.1)
    path = save(tmp_path / "d.pth", state)
    assert "_qkvb" in refusal(entry_of(path, "vit_small_patch16_dinov3", "dinov3"))


def test_the_distillation_token_is_not_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "d.pth", published.deit_distilled())
    assert "dist" in refusal(entry_of(path, VIT, "supervised")).partition("d.pth")[2]


@pytest.mark.parametrize("layout", ["timm", "google", "clip", "beit", "transformers"])
@pytest.mark.parametrize("change", ["missing", "extra"])
def test_the_number_of_blocks_must_be_right(layout: str, change: str, tmp_path: Path) -> None:
    size = SMALL_CLIP if layout == "clip" else SMALL
    other = replace(size, depth=size.depth + (1 if change == "extra" else -1))
    name, args, suffix, content = VIT, {}, "pth", None
    if layout == "timm":
        content = published.dino_backbone(other)
    elif layout == "google":
        suffix, content = "npz", published.google(other)
    elif layout == "clip":
        name, args, content = CLIP, CLIP_ARGS, published.clip(other)
    elif layout == "beit":
        name, args, content = "beit_base_patch16_224", BEIT_ARGS, published.beit(other)
    else:
        content = published.transformers_vit(published.plain(other))
    path = save(tmp_path / f"w.{suffix}", content)
    message = refusal(entry_of(path, name, "other", size, args=args))
    assert Path(path).name in message


def test_another_width_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.dino_backbone(replace(SMALL, width=96)))
    message = refusal(entry_of(path, VIT, "dino"))
    assert "w.pth" in message
    assert "96" in message


def test_another_patch_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", published.dino_backbone(replace(SMALL, patch=8)))
    message = refusal(entry_of(path, VIT, "dino"))
    assert "w.pth" in message
    assert "8" in message


@pytest.mark.parametrize(
    "name",
    [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.bias",
        "blocks.1.attn.qkv.bias",
        "blocks.2.norm2.weight",
        "norm.bias",
    ],
)
def test_one_missing_weight_is_named(name: str, tmp_path: Path) -> None:
    state = published.dino_backbone()
    del state[name]
    path = save(tmp_path / "w.pth", state)
    message = refusal(entry_of(path, VIT, "dino"))
    assert "w.pth" in message
    assert name in message


@pytest.mark.parametrize(
    "name",
    [
        "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias",
        "Transformer/encoderblock_2/MlpBlock_3/Dense_1/kernel",
        "Transformer/posembed_input/pos_embedding",
        "cls",
    ],
)
def test_one_missing_array_of_google_is_named(name: str, tmp_path: Path) -> None:
    arrays = published.google()
    del arrays[name]
    path = save(tmp_path / "w.npz", arrays)
    message = refusal(entry_of(path, VIT, "supervised"))
    assert "w.npz" in message
    assert name in message


def test_one_missing_weight_of_transformers_is_refused(tmp_path: Path) -> None:
    state = published.transformers_vit(published.plain())
    del state["vit.encoder.layer.1.attention.attention.key.bias"]
    path = save(tmp_path / "w.bin", state)
    assert "w.bin" in refusal(entry_of(path, VIT, "supervised"))


def test_one_weight_too_many_is_named(tmp_path: Path) -> None:
    state = published.dino_backbone() | {"blocks.0.attn.gate.weight": torch.ones(3)}
    path = save(tmp_path / "w.pth", state)
    message = refusal(entry_of(path, VIT, "dino"))
    assert "blocks.0.attn.gate.weight" in message


def test_files_of_the_catalogues_families_load_under_no_family(tmp_path: Path) -> None:
    """The family is a name for figures too; only a known one that is wrong is refused."""
    path = FAMILY_FILES["moco"](tmp_path)
    backbone = load_backbone(entry_of(path, VIT, "other"))
    batch = images(SMALL)
    assert_sees(backbone, _MOCO(batch.double()), batch)
