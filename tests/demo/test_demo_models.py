import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vitfeat.demo import digits, knn, network
from vitfeat.errors import ModelError

ROOT = Path(__file__).parents[2]


def record(name: str) -> dict:
    return json.loads((network.WEIGHTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", network.NAMES)
def test_weights_load_and_are_finite(name: str) -> None:
    state = network.load(name).state_dict()
    assert state.keys() == network.build(0).state_dict().keys()
    for value in state.values():
        assert value.dtype == torch.float32
        assert value.isfinite().all()


def test_size_and_shape() -> None:
    model = network.build(0)
    assert sum(p.numel() for p in model.parameters()) * 4 == pytest.approx(1.2e6, rel=0.05)
    with torch.inference_mode():
        assert model.forward_features(torch.zeros(2, 3, 32, 32)).shape == (2, 65, 64)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 64)


def test_building_is_seeded_and_leaves_the_global_state() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (network.build(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["blocks.0.attn.qkv.weight"], c["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("name", network.NAMES)
def test_shipped_scores_are_those_of_the_shipped_weights(name: str) -> None:
    scores = knn.accuracy_by_layer(network.load(name))
    for kind, shipped in record(name)["knn"].items():
        assert scores[kind] == pytest.approx(shipped, abs=0.01)


@pytest.mark.parametrize("name", network.TRAINED)
def test_training_helped(name: str) -> None:
    trained, untrained = record(name), record("random")
    assert trained["loss_after"] < trained["loss_before"]
    assert max(trained["knn"]["mean"]) > max(untrained["knn"]["mean"]) + 0.2
    if name not in ("mae", "beit"):
        assert max(trained["knn"]["cls"]) > 0.9


def test_features_are_neither_collapsed_nor_alike() -> None:
    images, _ = digits.load("test")
    last = {}
    for name in network.TRAINED:
        features = knn.layer_features(network.load(name), images)["mean"][-1].astype(np.float64)
        centred = features - features.mean(axis=0)
        share = np.linalg.svd(centred, compute_uv=False) ** 2
        share /= share.sum()
        assert np.exp(-(share * np.log(share + 1e-12)).sum()) > 3, name
        assert np.abs(features).max() < 100, name
        gram = centred @ centred.T
        last[name] = gram / np.linalg.norm(gram)
    names = list(last)
    likeness = [(last[a] * last[b]).sum() for i, a in enumerate(names) for b in names[:i]]
    assert max(likeness) < 0.95


def test_unknown_name_and_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no demo model 'vit': use one of supervised, clip"):
        network.load("vit")
    monkeypatch.setattr(network, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="cannot load the demo model 'mae'"):
        network.load("mae")
    (tmp_path / "mae.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="reinstall vitfeat") as error:
        network.load("mae")
    assert "\n" not in str(error.value)


TITLES = {
    "supervised": "Supervised",
    "clip": "CLIP",
    "dino": "DINO",
    "moco": "MoCo v3",
    "mae": "MAE",
    "beit": "BEiT",
    "random": "Untrained",
}


def lines_of(name: str) -> list[str]:
    """Return what the page must say of a model: its objective, and its rows of the tables."""
    r = record(name)
    rows = [[f"{100 * score:.1f}" for score in r["knn"][kind]] for kind in ("cls", "mean")]
    if name == "random":
        return [f"| {' | '.join([TITLES[name], *row])} |" for row in rows]
    how = ("epochs", "steps", "batch_size", "learning_rate", "seed")
    rows.append([*(f"{r[key]:g}" for key in how), f"{r['seconds']:.0f}"])
    rows.append([f"{r['loss_before']:.3f}", f"{r['loss_after']:.3f}"])
    of_objective = f"- **{TITLES[name]}** (`{name}`): {r['objective']} ({r['source']})."
    return [of_objective, *(f"| {' | '.join([TITLES[name], *row])} |" for row in rows)]


@pytest.mark.parametrize("name", network.NAMES)
def test_the_page_of_the_demo_models_has_their_records(name: str) -> None:
    page = (ROOT / "docs" / "demo_models.md").read_text("utf-8").splitlines()
    assert [line for line in lines_of(name) if line not in page] == []
    # No other lines of it, as from an earlier training.
    own = (f"| {TITLES[name]} |", f"- **{TITLES[name]}**")
    assert len([line for line in page if line.startswith(own)]) == len(lines_of(name))
