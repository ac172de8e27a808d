"""A trained ViT from outside, on real photographs: our taps beside onnxruntime's own tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.focus_weights import (
    ARCHITECTURE,
    DEPTH,
    SIZE,
    WIDTH,
    FocusGraph,
    Inside,
    absent,
    photographs,
    to_timm,
)
from vitfeat.data.loader import normalise
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import SquareView
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.taps import collect
from vitfeat.store.opening import open_store

pytestmark = pytest.mark.skipif(
    bool(absent()),
    reason=f"not installed: {', '.join(absent())} (pip install -e '.[dev]')",
)

HEADS, TOKENS = 6, 257
_POSITIONS = "embeddings.position_embeddings"

# Of a token: Euclidean distance over length. Of an entry of the attention: difference.
FEATURES, ATTENTION = 1e-3, 1e-4


@pytest.fixture(scope="module")
def graph() -> FocusGraph:
    return FocusGraph()


@pytest.fixture(scope="module")
def files(graph: FocusGraph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as two weight files: as transformers and as timm name them."""
    folder = tmp_path_factory.mktemp("focus")
    layouts = {
        "checkpoint": graph.weights,
        # The embedding that fits, so that nothing is left to resize.
        "timm": to_timm({**graph.weights, _POSITIONS: graph.position_embedding}),
    }
    for source, state in layouts.items():
        save_file(state, folder / f"{source}.safetensors")
    return {source: folder / f"{source}.safetensors" for source in layouts}


def _load(files: dict[str, Path], source: str, **fields: Any) -> Backbone:
    entry = {
        "source": source,
        "name": ARCHITECTURE,
        "checkpoint": str(files[source]),
        "family": "dinov2",
        "image_size": SIZE,
        **fields,
    }
    return load_backbone(ModelEntry.from_mapping("focus", entry))


@pytest.fixture(scope="module")
def backbone(files: dict[str, Path]) -> Backbone:
    return _load(files, "timm")


@pytest.fixture(scope="module")
def images(backbone: Backbone) -> Tensor:
    view = SquareView(backbone.image_size, interpolation=backbone.interpolation)
    pixels = np.stack([view(photograph) for photograph in photographs(columns=2)])
    return normalise(torch.from_numpy(pixels), backbone.mean, backbone.std)


@pytest.fixture(scope="module")
def inside(graph: FocusGraph, images: Tensor) -> Inside:
    """What onnxruntime sees inside of the graph."""
    return graph.run(images)


def _errors(found: dict[str, Tensor], inside: Inside) -> tuple[Tensor, Tensor]:
    """Return each layer's largest error: of tokens, relative, and of attention, absolute."""
    tokens, attention = found["tokens"], found["attention"]
    assert tokens.shape == inside.tokens.shape
    assert attention.shape == inside.attention.shape
    relative = (tokens - inside.tokens).norm(dim=-1) / inside.tokens.norm(dim=-1)
    return relative.amax((0, 2)), (attention - inside.attention).abs().amax((0, 2, 3, 4))


def test_the_graph_holds_a_trained_network(inside: Inside, images: Tensor) -> None:
    """What follows would say little of noise: attention would be even, and layers alike."""
    assert inside.tokens.shape == (len(images), DEPTH, TOKENS, WIDTH)
    assert inside.attention.shape == (len(images), DEPTH, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(
        inside.attention.sum(-1), torch.ones(len(images), DEPTH, HEADS, TOKENS)
    )
    entropy = torch.special.entr(inside.attention).sum(-1).mean((0, 2, 3))
    assert entropy.max() - entropy.min() > 1
    assert entropy.min() < np.log(TOKENS) - 1


@pytest.mark.parametrize("source", ["checkpoint", "timm"])
def test_taps_equal_onnxruntimes_tensors(
    source: str, files: dict[str, Path], graph: FocusGraph, images: Tensor, inside: Inside
) -> None:
    backbone = _load(files, source)
    # The graph resizes the embedding its own way; the networks are compared, not the resizing.
    positions: Any = backbone.module.pos_embed
    positions.copy_(graph.position_embedding)
    features, attention = _errors(collect(backbone, images), inside)
    assert features.shape == attention.shape == (DEPTH,)
    assert features.max() <= FEATURES
    assert attention.max() <= ATTENTION


def test_a_store_of_photographs_equals_onnxruntimes_tensors(
    backbone: Backbone, inside: Inside, tmp_path: Path
) -> None:
    """The whole way: files, decoding, threads, pieces of batches, Zarr."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, photograph in enumerate(photographs(columns=2)):
        photograph.save(folder / f"{number}.png")
    index = build_index(DatasetSpec(name="photographs", layout="flat", root=folder))
    taps = ("cls", "spatial", "attention")
    settings = Settings(taps=taps, dtype="float32", device="cpu", batch_size=3, workers=0)
    extract(backbone, index, folder, tmp_path / "focus.zarr", settings)
    store = open_store(tmp_path / "focus.zarr")
    cls, spatial, weights = (torch.from_numpy(np.asarray(store[tap][:])) for tap in taps)
    tokens = torch.cat([cls[:, :, None], spatial.flatten(2, 3)], 2)
    features, attention = _errors({"tokens": tokens, "attention": weights}, inside)
    assert features.max() <= FEATURES
    assert attention.max() <= ATTENTION


def test_the_graph_resized_its_positions_as_mae_does(
    graph: FocusGraph, files: dict[str, Path]
) -> None:
    """transformers exported plain bicubic, to 1e-6; the other ways are far from it."""
    distance = {}
    for way in ("mae", "dino", "timm"):
        ours: Any = _load(files, "checkpoint", positions=way).module.pos_embed
        theirs = graph.position_embedding
        distance[way] = float((ours - theirs).norm() / theirs.norm())
    assert distance["mae"] <= 1e-6
    assert distance["dino"] > 1e-3
    assert distance["timm"] > 1e-2


# --- It can fail ---


def _swap_heads(module: Any, layer: int, *, parts: tuple[int, ...], back: bool) -> None:
    """Exchange the first two heads' rows in queries (0), keys (1), values (2), and behind them."""
    attn, size = module.blocks[layer].attn, WIDTH // HEADS
    order = [1, 0, *range(2, HEADS)]
    for tensor in (attn.qkv.weight, attn.qkv.bias):
        heads = tensor.view(3, HEADS, size, -1)
        for part in parts:
            heads[part] = heads[part, order].clone()
    if back:
        attn.proj.weight.copy_(attn.proj.weight.unflatten(1, (HEADS, size))[:, order].flatten(1))


def _drop_layer_scale(module: Any) -> None:
    for block in module.blocks:
        block.ls1.gamma.fill_(1)
        block.ls2.gamma.fill_(1)


def _mirror_positions(module: Any) -> None:
    grid = module.pos_embed[:, 1:].unflatten(1, (16, 16))
    module.pos_embed[:, 1:] = grid.transpose(1, 2).flatten(1, 2).clone()


def _other_epsilon(module: Any) -> None:
    for block in module.blocks:
        block.norm1.eps = block.norm2.eps = 1e-3


_FAULTS: dict[str, tuple[Callable[[Any], None], bool, bool]] = {
    # The fault; whether features and attention show it.
    "queries of two heads swapped": (
        lambda module: _swap_heads(module, 5, parts=(0,), back=False),
        True,
        True,
    ),
    # The sum over heads is the same, so that features cannot tell.
    "two heads swapped altogether": (
        lambda module: _swap_heads(module, 5, parts=(0, 1, 2), back=True),
        False,
        True,
    ),
    "LayerScale left out": (_drop_layer_scale, True, True),
    "rows and columns of positions swapped": (_mirror_positions, True, True),
    "another epsilon of the norms": (_other_epsilon, True, True),
    "none": (lambda module: None, False, False),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_faults_are_far_above_the_tolerance(
    fault: str, backbone: Backbone, images: Tensor, inside: Inside
) -> None:
    do, in_features, in_attention = _FAULTS[fault]
    backbone = copy.deepcopy(backbone)
    with torch.no_grad():
        do(backbone.module)
    one = Inside(inside.tokens[:1], inside.attention[:1])
    features, attention = _errors(collect(backbone, images[:1]), one)
    for largest, tolerance, shows in (
        (features.max(), FEATURES, in_features),
        (attention.max(), ATTENTION, in_attention),
    ):
        assert largest > 100 * tolerance if shows else largest <= tolerance
