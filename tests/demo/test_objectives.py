"""Each loss against its formula, written out in float64 with NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import Generator, nn

from vitfeat.demo import network, tokens
from vitfeat.demo.batches import read
from vitfeat.demo.objectives import averaged
from vitfeat.demo.objectives.averaged import ema_momentum, ema_update
from vitfeat.demo.objectives.base import info_nce
from vitfeat.demo.objectives.labelled import STROKES, Captions
from vitfeat.demo.objectives.masked import (
    CODES,
    Mae,
    block_mask,
    fit_codebook,
    nearest_code,
    pixel_loss,
    random_mask,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_info_nce_is_the_cross_entropy_of_the_diagonal() -> None:
    logits = draw(5, 5)
    x = logits.numpy()
    rows = -np.log(softmax(x)[range(5), range(5)]).mean()
    columns = -np.log(softmax(x.T)[range(5), range(5)]).mean()
    loss = info_nce(logits, torch.eye(5, dtype=torch.bool))
    assert float(loss) == pytest.approx((rows + columns) / 2, rel=1e-12)


def test_info_nce_with_several_positives() -> None:
    logits = draw(4, 4)
    positives = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    expected = 0.0
    for x, p in ((logits.numpy(), positives.numpy()), (logits.numpy().T, positives.numpy().T)):
        for scores, matches in zip(x, p, strict=True):
            k = matches.sum()
            cross_entropy = -np.log(softmax(scores)[matches]).sum() / k
            expected += (cross_entropy - math.log(k)) / 8
    assert float(info_nce(logits, positives)) == pytest.approx(expected, rel=1e-12)


def test_info_nce_of_a_perfect_model_is_zero() -> None:
    positives = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3)).bool()
    assert float(info_nce(100.0 * positives, positives)) == pytest.approx(0, abs=1e-6)


def test_dino_loss() -> None:
    student = [draw(3, 7, seed=i) for i in range(4)]
    teacher = [draw(3, 7, seed=10 + i) for i in range(2)]
    centre = draw(7, seed=20)
    terms = []
    for i in range(2):
        p = softmax((teacher[i] - centre).numpy() / averaged.TEACHER_TEMPERATURE)
        for j in range(4):
            if i != j:
                q = softmax(student[j].numpy() / averaged.STUDENT_TEMPERATURE)
                terms.append(-(p * np.log(q)).sum(axis=1).mean())
    assert len(terms) == 6
    loss = averaged.distillation_loss(student, teacher, centre)
    assert float(loss) == pytest.approx(float(np.mean(terms)), rel=1e-12)


def test_dino_centre_follows_the_teacher() -> None:
    images = read("train", labelled=False)
    objective = averaged.Dino(network.build(0), images.images)
    objective.centre = torch.ones(averaged.PROTOTYPES)
    objective.loss(images.select(torch.arange(8)), Generator().manual_seed(0))
    latest = objective.latest.double()
    objective.update(0.0)
    torch.testing.assert_close(objective.centre.double(), 0.9 + 0.1 * latest, atol=1e-6, rtol=0)


def test_dino_prototypes_have_unit_length() -> None:
    head = averaged.Head(64)
    out = head(torch.randn(32, 64))
    assert out.abs().max() <= 1 + 1e-6
    scaled = averaged.Head(64)
    scaled.load_state_dict({**head.state_dict(), "prototypes": 3 * head.prototypes})
    x = torch.randn(4, 64)
    torch.testing.assert_close(scaled(x), head(x))


def test_mae_loss() -> None:
    predicted, patches = draw(2, 5, 12), draw(2, 5, 12, seed=1)
    masked = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 1, 0]]).bool()
    terms = []
    for i, j in masked.nonzero().tolist():
        truth = patches[i, j].numpy()
        target = (truth - truth.mean()) / np.sqrt(truth.var(ddof=1) + 1e-6)
        terms.append(np.mean((predicted[i, j].numpy() - target) ** 2))
    loss = pixel_loss(predicted, patches, masked)
    assert float(loss) == pytest.approx(float(np.mean(terms)), rel=1e-12)


def test_mae_mask() -> None:
    visible, masked = random_mask(1000, 64, Generator().manual_seed(0))
    assert visible.shape == (1000, 16)
    assert (masked.sum(dim=1) == 48).all()
    assert not masked.gather(1, visible).any()
    # No position is favoured.
    assert masked.float().mean(dim=0).min() > 0.68


def test_mae_encoder_does_not_see_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = read("train", labelled=False).select(torch.arange(4))
    seen: list[tuple[int, ...]] = []
    encode = tokens.encode

    def spy(net: nn.Module, patches: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(patches.shape))
        return encode(net, patches)

    monkeypatch.setattr(tokens, "encode", spy)
    Mae(network.build(0), data.images).loss(data, Generator().manual_seed(0))
    assert seen == [(4, 16, 64)]


def test_beit_codes_are_the_nearest_centroids() -> None:
    patches, codebook = draw(40, 16), draw(9, 16, seed=1)
    distances = ((patches.numpy()[:, None] - codebook.numpy()[None]) ** 2).sum(axis=2)
    assert nearest_code(patches, codebook).tolist() == distances.argmin(axis=1).tolist()


def test_beit_codebook_is_deterministic_and_in_use() -> None:
    images = read("train", labelled=False).images
    codebook = fit_codebook(images)
    assert codebook.shape == (CODES, 16)
    assert torch.equal(codebook, fit_codebook(images))
    codes = nearest_code(tokens.patchify(images[:, :1]).flatten(0, 1), codebook)
    assert len(codes.unique()) > 0.9 * CODES


def test_beit_mask_is_blockwise_and_of_the_ratio() -> None:
    generator = Generator().manual_seed(0)
    masks = torch.stack([block_mask(8, generator) for _ in range(200)])
    assert (masks.sum(dim=(1, 2)) == 26).all()
    assert masks.float().mean(dim=0).min() > 0.03
    # A masked patch's right neighbour is masked far more often than the 40 % of chance.
    assert (masks[:, :, 1:] & masks[:, :, :-1]).sum() / masks[:, :, :-1].sum() > 0.6


def test_moco_freezes_patches_and_positions() -> None:
    backbone = network.build(0)
    averaged.Moco(backbone, torch.zeros(1, 3, 32, 32))
    assert not backbone.pos_embed.requires_grad
    assert not any(p.requires_grad for p in backbone.patch_embed.parameters())
    assert backbone.blocks[0].attn.qkv.weight.requires_grad
    positions = backbone.pos_embed[0, 1:]
    # Sines and cosines: all rows have one length, and no two positions are alike.
    torch.testing.assert_close(positions.square().sum(dim=1), torch.full((64,), 32.0))
    assert len(positions.round(decimals=4).unique(dim=0)) == 64


def test_ema() -> None:
    average, current = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * average.weight.double() + 0.1 * current.weight.double()
    ema_update(average, current, 0.9)
    torch.testing.assert_close(average.weight.double(), expected, atol=1e-7, rtol=0)


def test_ema_momentum() -> None:
    assert ema_momentum(0.99, 0.0) == pytest.approx(0.99)
    assert ema_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert ema_momentum(0.99, 1.0) == pytest.approx(1.0)


def test_captions_are_true_of_what_they_say() -> None:
    data = read("train", labelled=True)
    captions = Captions(data.images)
    strokes = captions.strokes(data.images)
    counts = torch.bincount(strokes)
    assert counts.min() > 390
    ids, truth = captions.draw(data.labels, strokes, Generator().manual_seed(0))
    texts = [" ".join(captions.words[i] for i in row if i) for row in ids.tolist()]
    assert set(texts) <= set(captions.texts)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for j in range(0, len(texts), 40):
        words = texts[j].split()
        for i in range(0, len(texts), 7):
            stroke = set(words) & set(STROKES)
            fits = not stroke or stroke == {STROKES[strokes[i]]}
            assert truth[i, j] == (names[data.labels[i]] in words and fits)
    assert truth.diagonal().all()
    assert (~truth).any()


def test_captions_stand_for_strokes_by_ink() -> None:
    images = read("train", labelled=False).images
    strokes = Captions(images).strokes(images)
    ink = images.mean(dim=(1, 2, 3))
    assert ink[strokes == 0].max() <= ink[strokes == 1].min()
    assert ink[strokes == 1].max() <= ink[strokes == 2].min()


def test_patchify_follows_the_order_of_the_tokens() -> None:
    backbone = network.build(0)
    images = torch.rand(2, 3, 32, 32)
    flat = backbone.patch_embed.proj.weight.flatten(1)
    projected = tokens.patchify((images - 0.5) / 0.5) @ flat.T + backbone.patch_embed.proj.bias
    torch.testing.assert_close(projected, tokens.project(backbone, images), atol=1e-5, rtol=0)


def test_tokens_repeat_the_networks_forward_pass() -> None:
    backbone = network.build(0)
    images = torch.rand(2, 3, 32, 32)
    ours = tokens.encode(backbone, tokens.embed(backbone, images))
    torch.testing.assert_close(ours, backbone.forward_features((images - 0.5) / 0.5))


def test_positions_of_a_smaller_grid() -> None:
    backbone = network.build(0)
    assert torch.equal(tokens.positions(backbone, 8), backbone.pos_embed[:, 1:])
    assert tokens.positions(backbone, 4).shape == (1, 16, 64)
