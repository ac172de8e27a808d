"""The taps of the residual connections: what blocks get, and what their branches add.

Expected numbers are computed from the blocks' parts step by step in float64, and read by plain
hooks elsewhere in the blocks; never from the code under test.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.architectures import ACCEPTED, Architecture
from tests.models.residual_block import ResidualBlock
from tests.models.shrunk import FAKE_TOKENS, FakeAttention, FakeBlock, build, fake_backbone, noise
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.blocks import find_branches
from vitfeat.models.taps import Taps, collect
from vitfeat.store.arrays import RESIDUAL_TAPS

ALL = (*RESIDUAL_TAPS, "tokens")
N_IMAGES = 2

# Blocks that add attention and MLP at once.
NOT_SPLIT = {
    "vit_base_patch16_xp_224",
    "vit_pwee_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
}
_BY_ID = {a.id: a for a in ACCEPTED}


# --- Step by step ---


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    if type(norm) is nn.Identity:
        return x
    if "rms" in type(norm).__name__.lower():
        mean_square = x.square().mean(-1, keepdim=True)
        return x / (mean_square + norm.eps).sqrt() * norm.weight  # type: ignore[operator]
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias  # type: ignore[operator]


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


def _gamma(layer_scale: Any) -> Tensor | None:
    return getattr(layer_scale, "gamma", None)


def _plain(b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    attn = _scaled(attend(b.attn, _norm(x, b.norm1)), _gamma(b.ls1))
    return attn, _scaled(b.mlp(_norm(x + attn, b.norm2)), _gamma(b.ls2))


def _post_norm(b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    attn = _norm(attend(b.attn, x), b.norm1)
    return attn, _norm(b.mlp(x + attn), b.norm2)


def _gammas(b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    attn = _scaled(attend(b.attn, _norm(x, b.norm1)), b.gamma_1)
    return attn, _scaled(b.mlp(_norm(x + attn, b.norm2)), b.gamma_2)


def _side_by_side(
    b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    first, second = (
        _scaled(attend(part.attn, _norm(x, part.norm)), _gamma(part.ls)) for part in b.attns
    )
    skip = x + first + second
    left, right = (_scaled(part.mlp(_norm(skip, part.norm)), _gamma(part.ls)) for part in b.ffns)
    return first + second, left + right


def _sandwich(b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    attn = _norm(attend(b.attn, _norm(x, b.norm1)), b.norm2)
    return attn, _norm(b.mlp(_norm(x + attn, b.norm3)), b.norm4)


def _clip(b: Any, x: Tensor, attend: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    attn = attend(b.attn, _norm(x, b.ln_1))
    if hasattr(b, "ln_attn"):
        attn = _norm(attn, b.ln_attn)
    attn = _scaled(attn, _gamma(b.ls_1))
    return attn, _scaled(b.mlp(_norm(x + attn, b.ln_2)), _gamma(b.ls_2))


@pytest.mark.parametrize(
    ("name", "block", "by_hand"),
    [
        ("vit_base_patch16_224", "Block", _plain),
        ("deit3_base_patch16_224", "Block", _plain),
        ("vit_small_patch14_reg4_dinov2", "Block", _plain),
        ("vit_base_patch16_rpn_224", "ResPostBlock", _post_norm),
        ("vit_small_patch16_18x2_224", "ParallelThingsBlock", _side_by_side),
        ("beit_base_patch16_224", "Block", _gammas),
        ("eva02_tiny_patch14_224", "EvaBlock", _gammas),
        ("vit_small_patch16_dinov3", "EvaBlock", _gammas),
        ("eva02_enormous_patch14_clip_224", "EvaBlockPostNorm", _post_norm),
        ("vit_relpos_base_patch16_224", "RelPosBlock", _plain),
        ("vit_relpos_medium_patch16_rpn_224", "ResPostRelPosBlock", _post_norm),
        ("gemma4_vit_167m_enc", "Gemma4Block", _sandwich),
        ("open_clip ViT-B-32", "ResidualAttentionBlock", _clip),
        ("open_clip ViT-M-16-alt", "ResidualAttentionBlock", _clip),
        ("open_clip ViT-B-32 custom blocks", "CustomResidualAttentionBlock", _clip),
    ],
)
@torch.no_grad()
def test_branches_are_those_of_the_block_step_by_step(
    name: str, block: str, by_hand: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    backbone = build(_BY_ID[name])
    assert {type(b).__name__ for b in backbone.blocks} == {block}
    images = noise(backbone, N_IMAGES)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    inputs: list[Tensor] = []
    handles = []
    for one in backbone.blocks:
        part: Any = one.attn if hasattr(one, "attn") else one.attns[0].attn  # type: ignore[index,union-attr]
        handles += [
            one.register_forward_pre_hook(lambda _m, args: inputs.append(args[0])),
            part.register_forward_pre_hook(
                lambda _m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
            ),
        ]
    backbone.forward(images)
    for handle in handles:
        handle.remove()
    found = collect(backbone, images, ALL)
    for layer, one in enumerate(backbone.blocks):
        args, kwargs = calls[layer]

        def attend(module: Any, x: Tensor, args: Any = args, kwargs: Any = kwargs) -> Tensor:
            if isinstance(module, nn.MultiheadAttention):
                return module(x, x, x, need_weights=False)[0]
            return module(x, *_double(args[1:]), **_double(kwargs))

        attn, mlp = by_hand(copy.deepcopy(one).double(), inputs[layer].double(), attend)
        assert torch.equal(found["block_input"][:, layer], inputs[layer])
        for tap, expected in (("attn_branch", attn), ("mlp_branch", mlp)):
            close = {"atol": 2e-5 * expected.abs().max().item(), "rtol": 1e-4}
            torch.testing.assert_close(found[tap][:, layer].double(), expected, **close)
        # None of them is small beside another, so that a wrong one would show.
        sizes = [found[tap][:, layer].abs().mean() for tap in ALL]
        assert min(sizes) > 0.01 * max(sizes)


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _double(v) for k, v in value.items()}
    return tuple(map(_double, value)) if isinstance(value, tuple) else value


# --- Every architecture ---


@pytest.fixture(scope="module", params=ACCEPTED, ids=lambda a: a.id)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return request.param


def _second_skip(block: Any) -> nn.Module:
    """Return the first module that gets what the MLP's branch is added to."""
    if hasattr(block, "ffns"):
        return block.ffns[0].norm  # type: ignore[no-any-return]
    if type(block).__name__ in ("ResPostBlock", "EvaBlockPostNorm", "ResPostRelPosBlock"):
        return block.mlp  # type: ignore[no-any-return]
    return next(getattr(block, n) for n in ("norm3", "norm2", "ln_2") if hasattr(block, n))


@torch.no_grad()
def test_every_block_is_the_sum_of_its_parts_or_refused(architecture: Architecture) -> None:
    backbone = build(architecture)
    images = noise(backbone, N_IMAGES)
    before = _hooks(backbone)
    if architecture.id in NOT_SPLIT:
        with pytest.raises(ModelError) as info:
            collect(backbone, images, ALL)
        message = str(info.value)
        assert f"adds in layer 0 ({type(backbone.blocks[0]).__name__}) is nowhere to" in message
        assert (
            "leave out the taps block_input, attn_branch, mlp_branch and residual_norms" in message
        )
        assert "\n" not in message
        assert _hooks(backbone) == before
        return
    skips: list[Tensor] = []
    handles = [
        _second_skip(b).register_forward_pre_hook(lambda _m, args: skips.append(args[0]))
        for b in backbone.blocks
    ]
    found = collect(backbone, images, ALL)
    for handle in handles:
        handle.remove()
    assert _hooks(backbone) == before
    shape = (N_IMAGES, backbone.depth, backbone.n_tokens, backbone.width)
    assert {t.shape for t in found.values()} == {shape}
    gets, attn, mlp, output = (found[tap].double() for tap in ALL)
    # float32 rounds each of the two additions to a relative 6e-8.
    bound = 2**-22 * (gets.abs() + attn.abs() + mlp.abs())
    assert ((gets + attn + mlp - output).abs() <= bound).all()
    # The sum would be the same with the branches in each other's place; a skip would not.
    assert len(skips) == backbone.depth
    assert ((gets + attn - torch.stack(skips, 1).double()).abs() <= bound).all()
    assert torch.equal(found["block_input"][:, 1:], found["tokens"][:, :-1])
    assert attn.abs().mean() > 1e-3
    assert mlp.abs().mean() > 1e-3


# --- Order of tokens, parts, layers ---


def test_blocks_that_pass_tokens_first() -> None:
    """As open_clip's may: (token, image, channel)."""
    backbone = fake_backbone([ResidualBlock(), ResidualBlock()])
    images = noise(backbone, 3)
    expected = collect(backbone, images, ALL)
    module: Any = backbone.module
    turned = fake_backbone(
        list(backbone.blocks), lambda tokens: module(tokens.transpose(0, 1)).transpose(0, 1)
    )
    found = collect(_with(turned, batch_first=False), images, ALL)
    for tap in ALL:
        assert torch.equal(found[tap], expected[tap])
    tokens = images.flatten(1)[:, :40].view(3, FAKE_TOKENS, 8)
    assert torch.equal(found["block_input"][:, 0], tokens)
    torch.testing.assert_close(found["attn_branch"][:, 0], tokens / 2)
    torch.testing.assert_close(found["mlp_branch"][:, 1], tokens * 1.5 * 0.75 * 1.5 * -0.25)


def _with(backbone: Backbone, **changes: Any) -> Backbone:
    return replace(backbone, **changes)


@pytest.mark.parametrize("layers", [[1], [0, 2], [2, 0]])
def test_only_the_asked_layers_are_read(layers: list[int]) -> None:
    backbone = fake_backbone([ResidualBlock(0.1 * i, 0.2) for i in range(1, 4)])
    images = noise(backbone, 2)
    every, some = (collect(backbone, images, ALL, chosen) for chosen in (None, layers))
    for tap in ALL:
        assert torch.equal(some[tap], every[tap][:, layers])


def test_ends_of_branches() -> None:
    block = ResidualBlock()
    branches = find_branches(block)
    assert branches is not None
    assert (branches.attn, branches.mlp) == ((block.drop_path1,), (block.drop_path2,))
    assert find_branches(FakeBlock(FakeAttention())) is None
    sided: Any = nn.Module()
    sided.attns = nn.ModuleList([nn.Identity()])
    sided.ffns = nn.ModuleList([nn.Identity()])
    assert find_branches(sided) is None


# --- Nothing more than what is asked for, and nothing stays behind ---


def _hooks(backbone: Backbone) -> int:
    modules = backbone.module.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@pytest.mark.parametrize(
    ("wanted", "a_block"),
    [
        (("tokens",), 1),
        (("block_input",), 1),
        (("attn_branch",), 1),
        (("mlp_branch", "tokens"), 2),
        (RESIDUAL_TAPS, 3),
    ],
)
def test_hooks_that_are_not_asked_for_are_not_installed(
    wanted: tuple[str, ...], a_block: int
) -> None:
    backbone = build(_BY_ID["vit_base_patch16_224"])
    with Taps(backbone, wanted):
        assert _hooks(backbone) == a_block * backbone.depth
    assert _hooks(backbone) == 0
    with Taps(backbone, wanted, [1]):
        assert _hooks(backbone) == a_block
    assert set(collect(backbone, noise(backbone, 1), wanted)) == set(wanted)


class _BodyError(Exception):
    pass


@pytest.mark.parametrize("where", ["body", "sink"])
@pytest.mark.parametrize("name", ["vit_small_patch16_18x2_224", "open_clip ViT-M-16-alt"])
def test_hooks_go_when_something_raises(name: str, where: str) -> None:
    backbone = build(_BY_ID[name])
    images = noise(backbone, 1)
    seen: list[str] = []

    def sink(tap: str, *_: Any) -> None:
        seen.append(tap)
        if where == "sink" and tap == "mlp_branch":
            raise _BodyError

    def work() -> None:
        with Taps(backbone, ALL) as taps:
            taps.run(images, sink)
            raise _BodyError

    with pytest.raises(_BodyError):
        work()
    assert _hooks(backbone) == 0
    # In the order of the pass.
    assert seen[:3] == list(RESIDUAL_TAPS)
    assert len(seen) == (3 if where == "sink" else 4 * backbone.depth)


def test_a_failed_pass_leaves_nothing_for_the_next() -> None:
    """Not even half a branch of a block that has several modules side by side."""
    backbone = build(_BY_ID["vit_small_patch16_18x2_224"])
    images = noise(backbone, 2)
    expected = collect(backbone, images, ALL)
    found: dict[tuple[str, int], Tensor] = {}
    second: Any = backbone.blocks[0].attns[1]  # type: ignore[index,union-attr]

    def fail(*_: Any) -> None:
        raise _BodyError

    with Taps(backbone, ALL) as taps:
        handle = second.register_forward_pre_hook(fail)
        with pytest.raises(_BodyError):
            taps.run(images, lambda *_: None)
        handle.remove()
        backbone.forward(images)  # outside of any pass hooks do nothing
        taps.run(images, lambda tap, p, _s, t: found.__setitem__((tap, p), t.clone()))
    assert len(found) == 4 * backbone.depth
    for (tap, position), tensor in found.items():
        assert torch.equal(tensor, expected[tap][:, position])


# --- What is read is complete ---


@pytest.mark.parametrize("tap", RESIDUAL_TAPS)
def test_blocks_that_are_skipped_or_run_twice(tap: str) -> None:
    blocks: list[nn.Module] = [ResidualBlock() for _ in range(3)]
    for order, count in (((0, 2), 0), ((0, 1, 1, 2), 4)):

        def forward(tokens: Tensor, order: tuple[int, ...] = order) -> Tensor:
            for number in order:
                tokens = blocks[number](tokens)
            return tokens

        backbone = fake_backbone(blocks, forward)
        with pytest.raises(ModelError, match=rf"the tap {tap} .* of 2 images .*\{{1: {count}\}}"):
            collect(backbone, noise(backbone, 2), (tap,))


def test_a_branch_that_is_not_run_is_an_error() -> None:
    """A hook on a module that a block has and does not use: it would return nothing."""

    class Unused(ResidualBlock):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens + self.drop_path1(tokens)

    backbone = fake_backbone([Unused()])
    with pytest.raises(ModelError, match=r"the tap mlp_branch .*\{0: 0\}"):
        collect(backbone, noise(backbone, 2), ALL)


def test_a_branch_of_another_shape_is_an_error() -> None:
    class Some(ResidualBlock):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens + self.drop_path2(self.drop_path1(tokens[:, :1]))

    backbone = fake_backbone([Some()])
    with pytest.raises(ModelError, match=r"tap attn_branch of layer 0 has shape \(2, 1, 8\)"):
        collect(backbone, noise(backbone, 2), ALL)


@pytest.mark.parametrize("name", ["vit_small_patch16_18x2_224", "beit_base_patch16_224"])
def test_threads_see_their_own_images(name: str) -> None:
    backbone = build(_BY_ID[name])
    images = [noise(backbone, 2 + thread, seed=thread) for thread in range(2)]
    alone = [collect(backbone, batch, ALL) for batch in images]
    wrong: list[str] = []
    # Each thread waits for the other wherever it reads a tensor, so that their passes interleave.
    step = threading.Barrier(2, timeout=30)

    def wait(*_: Any) -> None:
        step.wait()

    for block in backbone.blocks:  # and between modules that stand side by side
        for part in getattr(block, "attns", []):
            part.register_forward_hook(wait)

    def work(thread: int, taps: Taps) -> None:
        found: dict[tuple[str, int], Tensor] = {}

        def keep(tap: str, position: int, _start: int, tensor: Tensor) -> None:
            step.wait()
            found[tap, position] = tensor.clone()
            step.wait()

        for _ in range(3):
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
                or not torch.allclose(tensor, alone[thread][tap][:, position], atol=1e-5)
            )
            if len(found) != 4 * backbone.depth:
                wrong.append(f"thread {thread} saw {sorted(found)}")

    with Taps(backbone, ALL) as taps:
        threads = [threading.Thread(target=work, args=(n, taps)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
