"""One contract for every architecture: what a described model and its taps give.

Expected numbers come from the libraries' own functions, from plain hooks, and from the modules'
weights; never from the code under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.models.architectures import ACCEPTED, REFUSED, SMALL, Architecture, Refused
from tests.models.shrunk import build, noise
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.blocks import attention_parts
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.structure import from_open_clip, from_timm
from vitfeat.models.taps import Taps, collect

N_IMAGES = 2


# Of the module, so that all tests of one architecture follow each other and share its pass.
@pytest.fixture(scope="module", params=ACCEPTED, ids=lambda a: a.id)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return request.param


@pytest.fixture(scope="module")
def backbone(architecture: Architecture) -> Backbone:
    return build(architecture)


@pytest.fixture(scope="module")
def images(backbone: Backbone) -> Tensor:
    return noise(backbone, N_IMAGES)


@pytest.fixture(scope="module")
def found(architecture: Architecture, backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    return collect(backbone, images, _taps(architecture))


@pytest.fixture
def attention(architecture: Architecture, found: dict[str, Tensor]) -> Tensor:
    if not architecture.has_attention:
        pytest.skip("its attention is refused, which another test holds it to")
    return found["attention"]


def _taps(architecture: Architecture) -> tuple[str, ...]:
    return ("tokens", "attention") if architecture.has_attention else ("tokens",)


@torch.no_grad()
def _arriving(backbone: Backbone, images: Tensor) -> Tensor:
    """Return what a plain hook sees arrive at the first block."""
    seen: list[Tensor] = []
    handle = backbone.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    backbone.forward(images)
    handle.remove()
    return seen[0]


# --- The description ---


def test_the_description(
    architecture: Architecture, backbone: Backbone, found: dict[str, Tensor]
) -> None:
    rows, columns = architecture.grid
    assert backbone.image_size == architecture.pixels
    assert backbone.patch_size == architecture.patch
    assert backbone.grid == (rows, columns)
    assert (backbone.depth, backbone.width) == (SMALL["depth"], architecture.width)
    assert backbone.heads == architecture.heads
    assert (backbone.n_prefix, backbone.has_cls) == (architecture.n_prefix, architecture.has_cls)
    assert backbone.n_registers == architecture.n_prefix - architecture.has_cls
    n_tokens = backbone.n_tokens
    assert n_tokens == architecture.n_prefix + rows * columns
    assert found["tokens"].shape == (N_IMAGES, backbone.depth, n_tokens, backbone.width)
    if architecture.has_attention:
        assert found["attention"].shape == (
            (N_IMAGES, backbone.depth, backbone.heads, n_tokens, n_tokens)
        )
    assert not backbone.module.training


def test_tokens_stand_where_the_description_says(
    architecture: Architecture, backbone: Backbone
) -> None:
    """Prefix tokens first and CLS before all; then the grid, row by row."""
    (rows, columns), (height, width) = architecture.grid, architecture.patch
    n_prefix = architecture.n_prefix
    # One image for each patch that differs in it, and one that differs in none.
    images = noise(backbone, 1).repeat(rows * columns + 1, 1, 1, 1)
    for patch in range(rows * columns):
        top, left = patch // columns * height, patch % columns * width
        images[patch, :, top : top + height, left : left + width] += 1.0
    tokens = _arriving(backbone, images)
    change = (tokens[:-1] - tokens[-1]).abs().amax(-1)
    assert change[:, :n_prefix].eq(0).all()
    grid = change[:, n_prefix:]
    assert grid.argmax(1).tolist() == list(range(rows * columns)) or not architecture.is_local
    if architecture.is_local:
        others = grid - grid.diag().diag()
        assert others.max() < 1e-4 * grid.diag().min()
    else:  # behind convolutions: the nearer half of the image answers more
        for top in (True, False):
            patches = range(columns) if top else range((rows - 1) * columns, rows * columns)
            halves = grid[list(patches)].unflatten(1, (rows, columns)).sum((0, 2))
            assert (halves[0] > halves[-1]) == top
    expected = ["cls_token"] * architecture.has_cls
    expected += ["register"] * (n_prefix - architecture.has_cls)
    assert _prefix_by_parameter(backbone, images[:1]) == expected


def _prefix_by_parameter(backbone: Backbone, images: Tensor) -> list[str]:
    """Name, for each prefix token, the parameter that moves it."""
    names = {
        "cls_token": "cls_token",
        "class_embedding": "cls_token",
        "reg_token": "register",
        "dist_token": "register",
    }
    before = _arriving(backbone, images)
    found: list[str] = [""] * backbone.n_prefix
    for name, parameter in backbone.module.named_parameters():
        if (kind := names.get(name.split(".")[-1])) is None:
            continue
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.linspace(0.5, 1, parameter.shape[-1]))
        moved = (_arriving(backbone, images) - before)[0].abs().amax(-1) > 1e-3
        with torch.no_grad():
            parameter.copy_(kept)
        for position in moved.nonzero().flatten().tolist():
            assert position < backbone.n_prefix
            found[position] += kind
    return found


# --- Tokens ---


@torch.no_grad()
def test_tokens_are_the_models_own_intermediates(
    architecture: Architecture, backbone: Backbone, images: Tensor, found: dict[str, Tensor]
) -> None:
    model: Any = backbone.module
    prefixes: list[Tensor]
    if architecture.source == "open_clip":
        own = model.forward_intermediates(images, intermediates_only=True, output_extra_tokens=True)
        grids, prefixes = own["image_intermediates"], own["image_intermediates_prefix"]
    else:
        # Some have no such argument, and others fail with it where there is no prefix.
        more = {"return_prefix_tokens": True} if architecture.n_prefix else {}
        own = model.forward_intermediates(images, norm=False, intermediates_only=True, **more)
        grids = [o[0] if isinstance(o, tuple) else o for o in own]
        prefixes = [o[1] for o in own if isinstance(o, tuple)]
    tokens = found["tokens"]
    assert len(grids) == tokens.shape[1]
    grid = tokens[:, :, architecture.n_prefix :].unflatten(2, architecture.grid)
    expected = torch.stack(grids, 1)  # (image, layer, channel, row, column)
    close = {"atol": 1e-5 * tokens.abs().max().item(), "rtol": 1e-4}
    torch.testing.assert_close(grid.movedim(-1, 2), expected, **close)
    assert len(prefixes) == (len(grids) if architecture.n_prefix else 0)
    if prefixes:
        torch.testing.assert_close(
            tokens[:, :, : architecture.n_prefix], torch.stack(prefixes, 1), **close
        )
    # A layer is not the next one.
    assert (tokens[:, 1:] - tokens[:, :-1]).abs().mean() > 1e-2


# --- Attention ---


class _Seen:
    """Inputs and outputs of every attention module in a pass without taps."""

    def __init__(self, backbone: Backbone, images: Tensor) -> None:
        self.calls: list[list[tuple[nn.Module, Tensor, Tensor]]] = []
        handles = []
        for block in backbone.blocks:
            calls: list[tuple[nn.Module, Tensor, Tensor]] = []
            self.calls.append(calls)

            def after(module: nn.Module, args: Any, output: Any, calls: list[Any] = calls) -> None:
                calls.append((module, args[0], output[0] if isinstance(output, tuple) else output))

            handles += [m.register_forward_hook(after) for m in attention_parts(block)]
        with torch.no_grad():
            backbone.forward(images)
        for handle in handles:
            handle.remove()


def _values(part: Any, x: Tensor, heads: int) -> Tensor:
    """Return (image, head, token, channel), from the module's weights."""
    if hasattr(part, "in_proj_weight"):
        bias = part.in_proj_bias
        values = linear(
            x, part.in_proj_weight.chunk(3)[2], None if bias is None else bias.chunk(3)[2]
        )
    elif hasattr(part, "in_proj"):
        *_, values = part.in_proj(part.in_norm(x)).split(part.in_split, -1)
    elif getattr(part, "v_proj", None) is not None:
        weights = getattr(part.v_proj, "linear", part.v_proj)
        values = linear(x, weights.weight, weights.bias)
    else:
        bias = getattr(part, "v_bias", None)
        if part.qkv.bias is not None:
            bias = part.qkv.bias.chunk(3)[2]
        values = linear(x, part.qkv.weight.chunk(3)[2], bias)
    # Neighbouring heads may share values.
    shared = getattr(part, "num_kv_groups", 1)
    values = values.unflatten(-1, (heads // shared, -1)).transpose(1, 2)
    if hasattr(part, "v_norm"):
        values = part.v_norm(values)
    return values.repeat_interleave(shared, 1)


def _output(part: Any, x: Tensor, attention: Tensor) -> Tensor:
    """Return what a module gives whose attention is this."""
    mixed = attention @ _values(part, x, attention.shape[1])
    if getattr(part, "head_scale", None) is not None:
        mixed = mixed * part.head_scale
    mixed = mixed.transpose(1, 2).flatten(2)
    if hasattr(part, "in_proj"):
        hidden = part.in_proj(part.in_norm(x))[..., : part.in_split[0]]
        if part.mlp_bias is not None:
            hidden = hidden + part.mlp_bias
        hidden = part.mlp_act(hidden)
        return x + part.ls(part.attn_out_proj(mixed) + part.mlp_out_proj(hidden))
    for name in ("norm", "ln_inner"):
        mixed = getattr(part, name, nn.Identity())(mixed)
    if getattr(part, "gate", None) is not None:
        mixed = mixed * part.gate(x).sigmoid()
    names = ("proj", "out_proj", "o_proj")
    return next(getattr(part, name) for name in names if hasattr(part, name))(mixed)


def test_attention_rows_sum_to_one(attention: Tensor) -> None:
    assert attention.min() >= 0
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    # Uniform rows, rows that all images share or heads that are the same would hide errors.
    n_tokens = attention.shape[-1]
    assert attention.std(-1).mean() * n_tokens > 0.3
    assert attention.std(0).mean() * n_tokens > 0.1
    assert attention.std(2).mean() * n_tokens > 0.2


@torch.no_grad()
def test_attention_times_values_is_the_attentions_output(
    backbone: Backbone, images: Tensor, attention: Tensor
) -> None:
    plain = _Seen(backbone, images)
    for layer, calls in enumerate(plain.calls):
        assert calls
        heads = backbone.heads // len(calls)
        for number, (part, x, output) in enumerate(calls):
            of_part = attention[:, layer, number * heads : (number + 1) * heads]
            torch.testing.assert_close(_output(part, x, of_part), output, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_attention_is_that_of_the_step_by_step_path(
    architecture: Architecture,
    backbone: Backbone,
    images: Tensor,
    attention: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """timm's modules can compute it without PyTorch's function; their dropout then sees it."""
    if architecture.source == "open_clip":
        pytest.skip("open_clip's modules cannot")
    layers: list[list[Tensor]] = []
    handles = []
    for block in backbone.blocks:
        seen: list[Tensor] = []
        layers.append(seen)
        for part in attention_parts(block):
            module: Any = part
            monkeypatch.setattr(module, "fused_attn", False)
            handles.append(
                module.attn_drop.register_forward_pre_hook(
                    lambda _m, args, seen=seen: seen.append(args[0])
                )
            )
    backbone.forward(images)
    for handle in handles:
        handle.remove()
    expected = torch.stack([torch.cat(seen, 1) for seen in layers], 1)
    torch.testing.assert_close(attention, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", [a for a in ACCEPTED if not a.has_attention], ids=lambda a: a.id)
def test_attention_that_is_no_softmax_is_refused(kind: Architecture) -> None:
    backbone = build(kind)
    with pytest.raises(ModelError, match="difference of two softmaxes") as info:
        collect(backbone, noise(backbone, 1), ("attention",))
    assert "leave out the taps attention, attention_summary and attention_mean" in str(info.value)
    assert "\n" not in str(info.value)


# --- Nothing stays behind ---


def _state(backbone: Backbone) -> list[Any]:
    return [
        (
            list(m._forward_hooks),
            list(m._forward_pre_hooks),
            getattr(m, "fused_attn", None),
            getattr(m, "use_fsdpa", None),
        )
        for m in backbone.module.modules()
    ]


class _SinkError(Exception):
    pass


def test_nothing_stays_behind(
    architecture: Architecture,
    backbone: Backbone,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in backbone.module.modules():
        if hasattr(module, "fused_attn"):
            monkeypatch.setattr(module, "fused_attn", False)  # a user's own setting
    before = _state(backbone)
    # Even of a network that is being trained, and outside no_grad().
    backbone.module.requires_grad_(True)
    kept: list[Tensor] = []
    calls = 0

    def keep(_tap: str, _position: int, _start: int, tensor: Tensor) -> None:
        kept.append(tensor)

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # in the midst of a pass
            raise _SinkError

    try:
        with Taps(backbone, _taps(architecture)) as taps:
            assert _state(backbone) != before
            taps.run(images, keep)
        assert _state(backbone) == before
        assert len(kept) == backbone.depth * len(_taps(architecture))
        assert not any(t.requires_grad or t.grad_fn is not None for t in kept)
        with pytest.raises(_SinkError), Taps(backbone, _taps(architecture)) as taps:
            taps.run(images, fail)
        assert _state(backbone) == before
        assert torch.overrides._len_torch_function_stack() == 0
        assert all(p.grad is None for p in backbone.module.parameters())
    finally:
        backbone.module.requires_grad_(False)


# --- What is refused ---


@pytest.mark.parametrize("refused", REFUSED, ids=lambda r: r.id)
def test_what_is_no_plain_vit_is_refused(refused: Refused) -> None:
    entry = ModelEntry(id="m", source=refused.source, name=refused.name, normalisation="half")
    describe = _describe_whole
    if refused.args is not None:
        entry, describe = entry.but(args=refused.args), load_backbone
    with pytest.raises(ModelError) as info:
        describe(entry)
    message = str(info.value)
    assert message.startswith("model m: ")
    assert refused.name in message
    assert "is not a plain ViT: " in message
    assert refused.reason in message
    assert "\n" not in message


def _describe_whole(entry: ModelEntry) -> Backbone:
    """Describe an architecture of full size that has no weights."""
    with torch.device("meta"):
        if entry.source == "timm":
            half = (0.5, 0.5, 0.5)
            model = timm.create_model(entry.name)
            return from_timm(entry, model, mean=half, std=half, interpolation="bicubic")
        config: Any = open_clip.get_model_config(entry.name)
        return from_open_clip(entry, _build_vision_tower(32, config["vision_cfg"]))


# --- The document ---


def test_the_document_has_the_list(root: Path) -> None:
    lines = (root / "docs/architectures.md").read_text("utf-8").splitlines()
    accepted = [
        f"| `{a.id}` | {a.shows} | {_prefix_in_words(a)} | {'yes' if a.has_attention else 'no'} |"
        for a in ACCEPTED
    ]
    refused = [f"| `{r.id}` | {r.shows} | {r.reason} |" for r in REFUSED]
    table = [line for line in lines if line.startswith("| `")]
    assert table == accepted + refused
    assert len(accepted) >= 60
    assert len({a.id for a in ACCEPTED}) == len(ACCEPTED)


def _prefix_in_words(architecture: Architecture) -> str:
    """Name the tokens before the grid: CLS and 4, CLS, 4, none."""
    further = architecture.n_prefix - architecture.has_cls
    return " and ".join(["CLS"] * architecture.has_cls + [str(further)] * bool(further)) or "none"
