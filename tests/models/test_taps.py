from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn

from tests.models.shrunk import (
    FAKE_TOKENS,
    TIMM_KINDS,
    FakeAttention,
    FakeBlock,
    FakeBranches,
    fake_backbone,
    noise,
    stir,
    timm_entry,
)
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.taps import Taps, collect

KINDS = [*TIMM_KINDS, "open_clip"]
N_IMAGES = 3


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    found = {kind: load_backbone(timm_entry(kind)) for kind in TIMM_KINDS}
    found["open_clip"] = load_backbone(
        ModelEntry(id="oc", source="open_clip", name="ViT-S-32-alt", image_size=96)
    )
    for backbone in found.values():
        stir(backbone.module)
    return found


@pytest.fixture(scope="module", params=KINDS)
def backbone(request: pytest.FixtureRequest, backbones: dict[str, Backbone]) -> Backbone:
    return backbones[request.param]


class _Plain:
    """What plain forward hooks see of a pass without taps."""

    def __init__(self, backbone: Backbone, images: Tensor) -> None:
        self.blocks: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.kwargs: list[dict[str, Any]] = []
        self.outputs: list[Tensor] = []

        def before(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            self.inputs.append(args[0])
            self.kwargs.append(kwargs)

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            self.outputs.append(output[0] if isinstance(output, tuple) else output)

        handles = []
        for block in backbone.blocks:
            attn: Any = block.attn
            handles += [
                block.register_forward_hook(lambda _m, _a, out: self.blocks.append(out)),
                attn.register_forward_pre_hook(before, with_kwargs=True),
                attn.register_forward_hook(after),
            ]
        with torch.no_grad():
            backbone.forward(images)
        for handle in handles:
            handle.remove()


def _rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate pairs of neighbouring channels; `rope` holds sines, then cosines."""
    sines, cosines = rope.chunk(2, -1)
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return x * cosines + turned * sines


@torch.no_grad()
def _by_hand(
    backbone: Backbone, attn: Any, x: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Compute attention, and what its module then gives, from the weights alone."""
    heads = backbone.heads
    bias: Tensor | float = 0.0
    out: nn.Linear
    if isinstance(attn, nn.MultiheadAttention):
        q, k, v = (x @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, -1)
        out = attn.out_proj
    elif getattr(attn, "q_proj", None) is not None:
        q, k, v = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
        out = attn.proj
    else:
        q, k, v = (x @ attn.qkv.weight.T).chunk(3, -1)
        if attn.qkv.bias is not None:
            qb, kb, vb = attn.qkv.bias.chunk(3)
            q, k, v = q + qb, k + kb, v + vb
        elif getattr(attn, "q_bias", None) is not None:
            q, v = q + attn.q_bias, v + attn.v_bias
        out = attn.proj
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if kwargs.get("rope") is not None:
        n = backbone.n_prefix
        q, k = (torch.cat([t[:, :, :n], _rotate(t[:, :, n:], kwargs["rope"])], 2) for t in (q, k))
    if getattr(attn, "relative_position_bias_table", None) is not None:
        table, n = attn.relative_position_bias_table, x.shape[1]
        bias = table[attn.relative_position_index.flatten()].view(n, n, heads).permute(2, 0, 1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    attention = powers / powers.sum(-1, keepdim=True)
    return attention, out((attention @ v).transpose(1, 2).flatten(2))


def test_backbone_describes_the_architecture(backbones: dict[str, Backbone]) -> None:
    for kind, (_, image_size, n_prefix, has_cls) in TIMM_KINDS.items():
        found = backbones[kind]
        assert (found.depth, found.width, found.heads) == (2, 48, 3)
        assert (found.grid, found.image_size) == ((4, 4), (image_size, image_size))
        assert (found.n_prefix, found.has_cls) == (n_prefix, has_cls)
        assert found.n_registers == n_prefix - has_cls
        assert found.n_tokens == 16 + n_prefix
    clip = backbones["open_clip"]
    assert (clip.depth, clip.width, clip.heads) == (12, 384, 6)
    assert (clip.grid, clip.n_prefix, clip.n_tokens) == ((3, 3), 1, 10)


def test_tokens_are_those_of_plain_hooks(backbone: Backbone) -> None:
    images = noise(backbone, N_IMAGES)
    plain = _Plain(backbone, images)
    tokens = collect(backbone, images, ("tokens",))["tokens"]
    assert tokens.shape == (N_IMAGES, backbone.depth, backbone.n_tokens, backbone.width)
    for layer, expected in enumerate(plain.blocks):
        torch.testing.assert_close(tokens[:, layer], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", list(TIMM_KINDS))
def test_tokens_are_those_of_timm(backbones: dict[str, Backbone], kind: str) -> None:
    backbone = backbones[kind]
    images = noise(backbone, N_IMAGES)
    # CLS where a model has one and registers where it has some; the grid without them.
    model: Any = backbone.module
    with torch.no_grad():
        expected = model.forward_intermediates(
            images, norm=False, intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC"
        )
    tokens = collect(backbone, images, ("tokens",))["tokens"]
    for layer, found in enumerate(expected):
        grid, prefix = found if isinstance(found, tuple) else (found, None)
        torch.testing.assert_close(
            tokens[:, layer, backbone.n_prefix :], grid, atol=1e-5, rtol=1e-5
        )
        if prefix is not None:
            torch.testing.assert_close(
                tokens[:, layer, : backbone.n_prefix], prefix, atol=1e-5, rtol=1e-5
            )


def test_attention_is_the_softmax_of_queries_and_keys(backbone: Backbone) -> None:
    images = noise(backbone, N_IMAGES)
    plain = _Plain(backbone, images)
    found = collect(backbone, images)
    attention = found["attention"]
    n = backbone.n_tokens
    assert attention.shape == (N_IMAGES, backbone.depth, backbone.heads, n, n)
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    # Uniform rows would hide errors of the keys' order.
    assert attention.std(-1).mean() > 1e-3
    for layer, block in enumerate(backbone.blocks):
        expected, output = _by_hand(backbone, block.attn, plain.inputs[layer], plain.kwargs[layer])
        torch.testing.assert_close(attention[:, layer], expected, atol=1e-5, rtol=1e-4)
        # The attention is the one that the network used: it explains the module's output.
        torch.testing.assert_close(output, plain.outputs[layer], atol=1e-4, rtol=1e-4)
        # And tapping did not change what comes out of the block.
        scale = plain.blocks[layer].abs().max().item()
        torch.testing.assert_close(
            found["tokens"][:, layer], plain.blocks[layer], atol=1e-5 * scale, rtol=1e-4
        )


@pytest.mark.parametrize("kind", list(TIMM_KINDS))
def test_attention_is_that_of_timms_unfused_path(
    backbones: dict[str, Backbone], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones[kind]
    images = noise(backbone, N_IMAGES)
    tapped = collect(backbone, images, ("attention",))["attention"]
    unfused: list[Tensor] = []
    handles = []
    for block in backbone.blocks:
        attn: Any = block.attn
        monkeypatch.setattr(attn, "fused_attn", False)
        handles.append(
            attn.attn_drop.register_forward_pre_hook(lambda _m, args: unfused.append(args[0]))
        )
    with torch.no_grad():
        backbone.forward(images)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(tapped, torch.stack(unfused, 1), atol=1e-5, rtol=1e-4)


def test_attention_of_a_module_without_a_fused_path_is_read_before_its_dropout() -> None:
    class Stepwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_drop = nn.Dropout(0.5)

        def forward(self, tokens: Tensor) -> Tensor:
            split = tokens.unflatten(-1, (2, -1)).transpose(1, 2)
            weights = self.attn_drop((split @ split.transpose(-2, -1)).softmax(-1))
            return (weights @ split).transpose(1, 2).flatten(2)

    backbone = fake_backbone([FakeBlock(Stepwise())])
    images = noise(backbone, 2)
    split = images.flatten(1)[:, :40].view(2, FAKE_TOKENS, 2, 4).transpose(1, 2)
    expected = (split @ split.transpose(-2, -1)).softmax(-1)
    torch.testing.assert_close(collect(backbone, images)["attention"][:, 0], expected)


def test_what_dropout_sees_must_be_a_softmax() -> None:
    """Talking heads mix the softmax over heads: what is dropped out of is no attention."""
    attn = TalkingHeadAttn(8, 2)
    stir(attn)
    backbone = fake_backbone([FakeBlock(attn.eval())])
    with pytest.raises(ModelError, match=r"layer 0 \(TalkingHeadAttn\).*rows do not sum to 1"):
        collect(backbone, noise(backbone, 2))
    assert collect(backbone, noise(backbone, 2), ("tokens",))["tokens"].shape == (2, 1, 5, 8)


def test_a_second_softmax_is_refused() -> None:
    class Twice(FakeAttention):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens) - super().forward(2 * tokens)

    backbone = fake_backbone([FakeBlock(FakeAttention()), FakeBlock(Twice())])
    with pytest.raises(ModelError, match=r"layer 1 takes more than one softmax; leave out"):
        collect(backbone, noise(backbone, 2))


@pytest.mark.parametrize("images_at_once", [1, 2, 9])
def test_heads_of_several_attentions_stand_in_one_row(
    images_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second has twice the heads of the first, so that half as many images fit at once.
    per_image = 2 * FAKE_TOKENS**2 * 4
    monkeypatch.setattr("vitfeat.models.taps._CPU_BYTES", images_at_once * per_image)
    backbone = fake_backbone([_three_branches(), _three_branches()], heads=7)
    images = noise(backbone, 5)
    alone = [
        fake_backbone([FakeBlock(branch.attn)], heads=branch.attn.num_heads)
        for branch in _three_branches().attns
    ]
    expected = torch.cat([collect(b, images)["attention"] for b in alone], 2)
    for _ in range(2):  # a pass leaves nothing for the next
        attention = collect(backbone, images)["attention"]
        assert attention.shape == (5, 2, 7, FAKE_TOKENS, FAKE_TOKENS)
        torch.testing.assert_close(attention[:, 0], expected[:, 0])


def _three_branches() -> FakeBranches:
    return FakeBranches(FakeAttention(2), FakeAttention(4), FakeAttention(1, scale=0.1))


@pytest.mark.parametrize("layers", [[0], [1], [0, 1]])
def test_only_the_asked_layers_are_read(backbones: dict[str, Backbone], layers: list[int]) -> None:
    backbone = backbones["plain"]
    images = noise(backbone, 2)
    everything, some = collect(backbone, images), collect(backbone, images, layers=layers)
    for tap, tensor in some.items():
        # A layer that is not asked for runs fused, which rounds in another order.
        torch.testing.assert_close(tensor, everything[tap][:, layers], atol=1e-4, rtol=1e-4)


def test_large_batches_are_attended_piece_by_piece() -> None:
    # 197 tokens and 3 heads are 0.46 MB an image: two images are what a core's cache holds.
    backbone = load_backbone(
        timm_entry(args={"depth": 1, "embed_dim": 48, "num_heads": 3}, image_size=224)
    )
    stir(backbone.module)
    images = noise(backbone, 5)
    plain = _Plain(backbone, images)
    pieces: list[tuple[int, Tensor]] = []
    with Taps(backbone, ("attention",)) as taps:
        taps.run(images, lambda _tap, _pos, start, t: pieces.append((start, t.clone())))
    assert [start for start, _ in pieces] == [0, 2, 4]
    assert [len(piece) for _, piece in pieces] == [2, 2, 1]
    expected, _ = _by_hand(backbone, backbone.blocks[0].attn, plain.inputs[0], {})
    torch.testing.assert_close(
        torch.cat([piece for _, piece in pieces]), expected, atol=1e-5, rtol=1e-4
    )


_LOWER = torch.ones(FAKE_TOKENS, FAKE_TOKENS, dtype=torch.bool).tril()
_EACH = torch.rand(4, 1, FAKE_TOKENS, FAKE_TOKENS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("mask", "scale"),
    [
        (None, None),
        (None, 0.1),
        (_LOWER, None),
        (_LOWER.view(1, 1, FAKE_TOKENS, FAKE_TOKENS), None),
        (_EACH[0, 0], None),
        (_EACH, None),
        (_EACH > 0.3, 2.0),
    ],
    ids=["none", "scale", "bool", "bool of 4 dims", "float", "one an image", "bool an image"],
)
@pytest.mark.parametrize("piecewise", [False, True])
def test_masks_and_scales(
    mask: Tensor | None,
    scale: float | None,
    piecewise: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if piecewise:  # three images at a time, so that the masks must be cut as the images are
        monkeypatch.setattr("vitfeat.models.taps._CPU_BYTES", 3 * 2 * FAKE_TOKENS**2 * 4)
    if mask is not None and mask.dtype == torch.bool:
        mask = mask | torch.eye(FAKE_TOKENS, dtype=torch.bool)  # no row without keys
    backbone = fake_backbone([FakeBlock(FakeAttention(attn_mask=mask, scale=scale))])
    images = noise(backbone, 4)
    tokens = images.flatten(1)[:, :40].view(4, FAKE_TOKENS, 8)
    split = tokens.unflatten(-1, (2, 4)).transpose(1, 2)
    scores = split @ split.transpose(-2, -1) * (0.5 if scale is None else scale)
    if mask is not None and mask.dtype == torch.bool:
        scores = torch.where(mask, scores, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    found = collect(backbone, images)
    torch.testing.assert_close(found["attention"][:, 0], scores.softmax(-1))
    # The untapped network is PyTorch's own arithmetic.
    torch.testing.assert_close(found["tokens"][:, 0], backbone.forward(images))


@pytest.mark.parametrize("shared", [2, 4])
def test_heads_that_share_keys_and_values(shared: int) -> None:
    attn = FakeAttention(4, shared, enable_gqa=True)
    backbone = fake_backbone([FakeBlock(attn)], heads=4)
    images = noise(backbone, 3)
    split = images.flatten(1)[:, :40].view(3, FAKE_TOKENS, 4, 2).transpose(1, 2)
    keys = split[:, [head // shared * shared for head in range(4)]]
    expected = (split @ keys.transpose(-2, -1) / math.sqrt(2)).softmax(-1)
    found = collect(backbone, images)
    torch.testing.assert_close(found["attention"][:, 0], expected)
    torch.testing.assert_close(found["tokens"][:, 0], backbone.forward(images))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_are_float32_under_autocast(kind: torch.dtype) -> None:
    """Large logits in bfloat16 would move the softmax by whole steps."""

    class Projected(FakeAttention):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 8)

        def forward(self, tokens: Tensor) -> Tensor:
            seen.append(self.qkv(tokens))
            return super().forward(seen[-1])

    seen: list[Tensor] = []
    block: Any = FakeBlock(Projected())
    backbone = fake_backbone([block])
    stir(backbone.module)
    # A part that all tokens share makes logits large and leaves the softmax far from one-hot.
    block.attn.qkv.bias.data.fill_(10)
    images = noise(backbone, 3) / 4
    with torch.autocast("cpu", kind):
        found = collect(backbone, images, ("attention",))["attention"][:, 0]
    assert seen[0].dtype == kind
    split = seen[0].double().unflatten(-1, (2, 4)).transpose(1, 2)
    logits = split @ split.transpose(-2, -1) / 2
    rounded = logits.to(kind).double().softmax(-1)
    assert (logits.softmax(-1) - rounded).abs().max() > 0.01
    torch.testing.assert_close(found.double(), logits.softmax(-1), atol=1e-5, rtol=1e-4)


def test_causal_attention_is_refused() -> None:
    backbone = fake_backbone([FakeBlock(FakeAttention(is_causal=True))])
    with pytest.raises(ModelError, match="causal"):
        collect(backbone, noise(backbone, 1))


# --- Nothing stays behind ---


def _state(backbone: Backbone) -> list[tuple[int, int, Any]]:
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "fused_attn", None))
        for m in backbone.module.modules()
    ]


class _BodyError(Exception):
    pass


@pytest.mark.parametrize("where", ["nowhere", "body", "sink"])
def test_hooks_and_settings_are_put_back(backbone: Backbone, where: str) -> None:
    attn: Any = backbone.blocks[0].attn
    had = getattr(attn, "fused_attn", None)
    if had is not None:
        attn.fused_attn = False  # a user's own setting
    before = _state(backbone)
    images = noise(backbone, 1)

    def sink(*_: Any) -> None:
        if where == "sink":
            raise _BodyError

    def work() -> None:
        with Taps(backbone, ("tokens", "attention")) as taps:
            assert _state(backbone) != before
            taps.run(images, sink)
            if where == "body":
                raise _BodyError

    if where == "nowhere":
        work()
    else:
        with pytest.raises(_BodyError):
            work()
    assert _state(backbone) == before
    # And no function mode stays: attention is PyTorch's again.
    assert torch.overrides._len_torch_function_stack() == 0
    if had is not None:
        attn.fused_attn = had


def test_a_failed_pass_leaves_nothing_for_the_next(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["plain"]
    images = noise(backbone, 2)
    expected = collect(backbone, images)["attention"]
    kept: list[Tensor] = []

    def broken(*_: Any) -> None:
        raise _BodyError

    with Taps(backbone, ("attention",)) as taps:
        with pytest.raises(_BodyError):
            taps.run(images, broken)
        taps.run(images, lambda _t, _p, _s, tensor: kept.append(tensor.clone()))
    torch.testing.assert_close(torch.stack(kept, 1), expected)


def test_a_block_that_cannot_be_tapped_leaves_no_hooks_on_the_others() -> None:
    class Unknown(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    backbone = fake_backbone([FakeBlock(FakeAttention()), FakeBlock(Unknown())])
    before = _state(backbone)
    with pytest.raises(ModelError, match=r"attention of layer 1 \(Unknown\) cannot") as info:
        collect(backbone, noise(backbone, 1))
    assert "\n" not in str(info.value)
    assert "leave out the taps attention, attention_summary and attention_mean" in str(info.value)
    assert _state(backbone) == before
    # Its tokens can be had all the same.
    assert collect(backbone, noise(backbone, 1), ("tokens",))["tokens"].shape == (1, 2, 5, 8)


# --- What is read is complete ---


def test_a_skipped_block_is_an_error() -> None:
    blocks: list[nn.Module] = [FakeBlock(FakeAttention()) for _ in range(3)]
    backbone = fake_backbone(blocks, lambda tokens: blocks[2](blocks[0](tokens)))
    for tap in ("tokens", "attention"):
        with pytest.raises(ModelError, match=rf"the tap {tap} .* of 2 images .*\{{1: 0\}}"):
            collect(backbone, noise(backbone, 2), (tap,))


def test_a_block_that_runs_twice_is_an_error() -> None:
    blocks: list[nn.Module] = [FakeBlock(FakeAttention()) for _ in range(2)]
    backbone = fake_backbone(blocks, lambda tokens: blocks[1](blocks[1](blocks[0](tokens))))
    for tap in ("tokens", "attention"):
        with pytest.raises(ModelError, match=rf"the tap {tap} .*\{{1: 4\}}"):
            collect(backbone, noise(backbone, 2), (tap,))


def test_fused_attention_that_never_asks_torch_is_an_error() -> None:
    """The trap: hooks that match modules, and see nothing."""

    class Own(nn.Module):
        fused_attn = True

        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    backbone = fake_backbone([FakeBlock(Own())])
    with pytest.raises(ModelError, match=r"the tap attention .*\{0: 0\}"):
        collect(backbone, noise(backbone, 2))


def test_tokens_of_another_shape_are_an_error() -> None:
    backbone = fake_backbone(
        [FakeBlock(FakeAttention())], lambda tokens: backbone.blocks[0](tokens[:, 1:])
    )
    with pytest.raises(ModelError, match=r"tap tokens of layer 0 has shape \(2, 4, 8\), expected"):
        collect(backbone, noise(backbone, 2), ("tokens",))


def test_unknown_raw_taps_are_a_programmers_error() -> None:
    with pytest.raises(ValueError, match="mlp"):
        Taps(fake_backbone([FakeBlock(FakeAttention())]), ("mlp",))


@pytest.mark.parametrize("kind", ["plain", "branches"])
def test_threads_see_their_own_images(backbones: dict[str, Backbone], kind: str) -> None:
    backbone = backbones["plain"]
    if kind == "branches":
        blocks = [FakeBranches(FakeAttention(), FakeAttention(scale=0.1)) for _ in range(2)]
        backbone = fake_backbone(list(blocks), heads=4)
    images = [noise(backbone, 2 + thread, seed=thread) for thread in range(2)]
    alone = [collect(backbone, batch) for batch in images]
    wrong: list[str] = []
    # Each thread waits for the other wherever it reads a tensor, so that their passes interleave.
    step = threading.Barrier(2, timeout=30)

    def wait(*_: Any) -> None:
        step.wait()

    if kind == "branches":  # and between the modules of a block
        for block in blocks:
            block.attns[0].register_forward_hook(wait)

    def work(thread: int, taps: Taps) -> None:
        found: dict[tuple[str, int], Tensor] = {}

        def keep(tap: str, position: int, _start: int, tensor: Tensor) -> None:
            step.wait()
            found[tap, position] = tensor.clone()
            step.wait()

        for _ in range(5):
            found.clear()
            try:
                taps.run(images[thread], keep)
            except Exception as error:
                wrong.append(f"thread {thread}: {error!r}")
                step.abort()
                return
            wrong.extend(
                f"thread {thread}: {tap}, {position}"
                for (tap, position), tensor in found.items()
                if tensor.shape[0] != len(images[thread])
                or not torch.allclose(tensor, alone[thread][tap][:, position], atol=1e-6)
            )
            if len(found) != 4:
                wrong.append(f"thread {thread} saw {sorted(found)}")

    with Taps(backbone, ("tokens", "attention")) as taps:
        threads = [threading.Thread(target=work, args=(n, taps)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
