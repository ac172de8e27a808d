import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator

from vitfeat.demo import network, train
from vitfeat.demo.batches import HIDDEN, Batch, read
from vitfeat.demo.objectives import OBJECTIVES, Objective
from vitfeat.errors import ModelError


@pytest.mark.parametrize("name", network.TRAINED)
def test_a_few_steps_lower_the_loss(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if name != "mae":
        # The scores of one model are enough to see that training records them.
        monkeypatch.setattr(train.knn, "accuracy_by_layer", lambda network: {})
    some, evaluate = torch.arange(256), train.evaluate
    monkeypatch.setattr(
        train, "evaluate", lambda objective, data: evaluate(objective, data.select(some))
    )
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    record = train.train(name, tmp_path, threads=1, steps=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    assert record == json.loads((tmp_path / f"{name}.json").read_text())
    assert record["steps"] == 4
    assert caplog.messages
    assert bool(record["knn"]) == (name == "mae")
    # DINO's target sharpens as its teacher learns, so that its loss may rise at first.
    assert record["loss_after"] < record["loss_before"] + (0.1 if name == "dino" else 0.0)
    trained = load_file(tmp_path / f"{name}.safetensors")
    assert trained.keys() == network.build(0).state_dict().keys()
    assert all(value.dtype == torch.float32 for value in trained.values())


@pytest.mark.parametrize("name", ["mae", "beit"])
def test_same_seed_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Scores and held-out losses have no part in the weights and most of the time.
    monkeypatch.setattr(train.knn, "accuracy_by_layer", lambda network: {})
    monkeypatch.setattr(train, "evaluate", lambda objective, data: 0.0)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        train.train(name, tmp_path / folder, seed=seed, threads=1, steps=2)
    a, b, c = ((tmp_path / f / f"{name}.safetensors").read_bytes() for f in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("name", network.TRAINED)
def test_every_learned_weight_gets_a_gradient(name: str) -> None:
    kind = OBJECTIVES[name]
    data = read("train", labelled=kind.needs_labels)
    objective = kind(network.build(0), data.images)
    loss = objective.loss(data.select(torch.arange(16)), Generator().manual_seed(0))
    torch.autograd.backward(loss)
    silent = [
        key
        for key, weight in objective.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.isfinite().all())
    ]
    assert not silent


@pytest.mark.parametrize("name", ["dino", "moco", "mae", "beit"])
def test_no_labels_are_needed(name: str) -> None:
    assert not OBJECTIVES[name].needs_labels
    data = read("train", labelled=False)
    assert (data.labels == HIDDEN).all()


def test_evaluation_changes_nothing_and_repeats() -> None:
    data = read("test", labelled=False)
    objective = OBJECTIVES["dino"](network.build(0), data.images)
    weights = [p.clone() for p in objective.parameters()]
    few = data.select(torch.arange(128))
    assert train.evaluate(objective, few) == train.evaluate(objective, few)
    assert all(map(torch.equal, weights, objective.parameters()))


def test_rate_schedule() -> None:
    factors = [train.rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[-1] == pytest.approx(train.FINAL_RATE, abs=0.001)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_curve_averages_all_steps() -> None:
    class Counting(Objective):
        recipe = OBJECTIVES["mae"].recipe
        summary = source = ""
        taken = 0

        def loss(self, batch: Batch, generator: Generator) -> torch.Tensor:
            self.taken += 1
            return self.backbone.cls_token.sum() * 0 + self.taken

    data = read("train", labelled=False)
    objective = Counting(network.build(0), data.images)
    curve = train.optimise(objective, data, 40, Generator().manual_seed(0))
    assert curve == [2 * i + 1.5 for i in range(20)]


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no objective 'random' to train: use one of supervised"):
        train.train("random", tmp_path)


class BegunError(Exception):
    """Training has gone far enough."""


@pytest.mark.parametrize("name", network.TRAINED)
def test_training_begins_as_that_of_the_shipped_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That they score what is recorded is shown in test_demo_models.py."""
    shipped = json.loads((network.WEIGHTS / f"{name}.json").read_text())
    first_point = round(shipped["steps"] / train.CURVE_POINTS)
    losses: list[float] = []

    class Watched(OBJECTIVES[name]):  # type: ignore[misc]
        def loss(self, batch: Batch, generator: Generator) -> torch.Tensor:
            self.last = super().loss(batch, generator)
            return self.last

        def update(self, progress: float) -> None:
            super().update(progress)
            losses.append(self.last.item())
            if len(losses) == first_point:
                raise BegunError

    evaluate = train.evaluate

    def evaluated(objective: Objective, data: Batch) -> float:
        value = evaluate(objective, data)
        assert value == pytest.approx(shipped["loss_before"], abs=0.01)
        return value

    monkeypatch.setitem(OBJECTIVES, name, Watched)
    monkeypatch.setattr(train, "evaluate", evaluated)
    with pytest.raises(BegunError):
        train.train(name, tmp_path, seed=shipped["seed"], threads=1)
    assert sum(losses) / first_point == pytest.approx(shipped["loss_curve"][0], abs=0.01)
