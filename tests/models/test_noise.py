from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.shrunk import noise
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.taps import collect


def _noise(name: str = "small", seed: int = 0, **changes: Any) -> Backbone:
    fields = {"image_size": 64, "args": {"depth": 2}, **changes}
    return load_backbone(ModelEntry(id="n", source="noise", name=name, seed=seed, **fields))


def test_shapes_are_those_of_the_published_vits() -> None:
    base = load_backbone(ModelEntry(id="n", source="noise", name="base"))
    assert (base.depth, base.width, base.heads, base.grid) == (12, 768, 12, (14, 14))
    assert (base.n_prefix, base.has_cls, base.n_tokens) == (1, True, 197)


def test_tokens_are_standard_normal_and_attention_sums_to_one() -> None:
    backbone = _noise()
    found = collect(backbone, noise(backbone, 8))
    tokens, attention = found["tokens"], found["attention"]
    assert tokens.shape == (8, 2, 17, 384)
    assert attention.shape == (8, 2, 6, 17, 17)
    # 104,448 numbers: the mean's standard error is 0.003.
    assert abs(tokens.mean().item()) < 0.02
    assert abs(tokens.std().item() - 1) < 0.02
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    assert (attention >= 0).all()
    # Uniform numbers over their sum: their spread is 1 / sqrt(3) of their mean.
    assert abs((attention * 17).std().item() - 3**-0.5) < 0.03


def test_nothing_repeats() -> None:
    backbone = _noise()
    found = collect(backbone, noise(backbone, 3))
    for tensor in found.values():
        rows = tensor.flatten(2).flatten(0, 1)
        assert len(rows.unique(dim=0)) == 6, "images and layers have noise of their own"


def test_an_images_noise_does_not_depend_on_its_batch() -> None:
    backbone = _noise()
    images = noise(backbone, 4)
    together, alone = collect(backbone, images), collect(backbone, images[2:3])
    turned = collect(backbone, images.flip(0))
    for tap in together:
        assert torch.equal(alone[tap], together[tap][2:3])
        assert torch.equal(turned[tap].flip(0), together[tap])


def test_the_seed_decides() -> None:
    backbone, again, other = _noise(), _noise(), _noise(seed=1)
    images = noise(backbone, 1)
    assert torch.equal(collect(backbone, images)["tokens"], collect(again, images)["tokens"])
    assert not torch.equal(collect(backbone, images)["tokens"], collect(other, images)["tokens"])
    assert backbone.weights_sha256() == again.weights_sha256() != other.weights_sha256()


def test_grids_need_not_be_square() -> None:
    assert _noise(image_size=[32, 64]).grid == (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "medium"}, r"no size 'medium'; allowed: small, base, large"),
        ({"args": {"depht": 2}}, r"no argument depht; allowed: depth"),
        ({"args": {"depth": 0}}, r"args\.depth: found 0; a whole number above 0"),
        ({"args": {"patch_size": [16, 8]}}, r"args\.patch_size: found \[16, 8\]"),
        ({"args": {"embed_dim": "x"}}, r"args\.embed_dim: found 'x'"),
        ({"image_size": 63}, r"63 x 63 pixels are no whole patches of 16"),
        ({"normalisation": "clip"}, r"takes no normalisation"),
    ],
)
def test_what_noise_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _noise(**changes)
