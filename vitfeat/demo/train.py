"""Train a demo model from nothing but the digits, and record how it went."""

from __future__ import annotations

import json
import logging
import math
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Generator
from torch.optim import AdamW

from vitfeat.demo import knn, network
from vitfeat.demo.batches import Batch, epoch, read
from vitfeat.demo.objectives import OBJECTIVES, Objective
from vitfeat.errors import ModelError

logger = logging.getLogger(__name__)

WARMUP = 0.1
FINAL_RATE = 0.01
LARGEST_NORM = 1.0
CURVE_POINTS = 20
_EVALUATION_SEED = 20_210_429


def rate_factor(step: int, steps: int) -> float:
    """Return the factor on the peak rate; `step` counts from 0.

    Linear warm-up over a tenth of the steps, then a cosine down to a hundredth.
    """
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    cosine = (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2.0
    return FINAL_RATE + (1.0 - FINAL_RATE) * cosine


def optimise(
    objective: Objective,
    data: Batch,
    steps: int,
    generator: Generator,
) -> list[float]:
    """Train an objective in place by AdamW (Loshchilov and Hutter, 2019).

    Returns the loss curve: mean training loss in up to 20 consecutive parts of the training.
    """
    recipe = objective.recipe
    learned = [p for p in objective.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = AdamW(groups, lr=recipe.learning_rate, fused=True)
    losses: list[float] = []
    points = [round(steps * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)]
    curve: list[float] = []
    start = 0
    while len(losses) < steps:
        for batch in epoch(data, recipe.batch_size, generator):
            step = len(losses)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * rate_factor(step, steps)
            loss = objective.loss(batch, generator)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(learned, LARGEST_NORM)
            optimiser.step()
            objective.update(step / steps)
            losses.append(loss.item())
            if len(losses) in points:
                curve.append(round(sum(losses[start:]) / (len(losses) - start), 4))
                start = len(losses)
                logger.info(f"step {start} of {steps}: loss {curve[-1]:.4f}")
            if len(losses) == steps:
                break
    return curve


@torch.no_grad()
def evaluate(objective: Objective, data: Batch) -> float:
    """Return the mean loss over held-out batches, always the same ones with the same views."""
    generator = Generator().manual_seed(_EVALUATION_SEED)
    losses = [
        objective.loss(batch, generator).item()
        for batch in epoch(data, objective.recipe.batch_size, generator)
    ]
    return sum(losses) / len(losses)


def train(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    threads: int | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train one model; write ``out/{name}.safetensors`` (float32) and ``out/{name}.json``.

    The same seed, thread count and machine give the same weights; the global random state is left
    as it was. The test split is used for the k-NN scores and the loss before and after only.

    Returns what the JSON file holds: objective, recipe, seconds, losses, and k-NN accuracy by
    layer.
    """
    if name not in OBJECTIVES:
        raise ModelError(f"no objective {name!r} to train: use one of {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[name]
    data = read("train", labelled=kind.needs_labels)
    held_out = read("test", labelled=kind.needs_labels)
    per_epoch = len(data.images) // kind.recipe.batch_size
    steps = kind.recipe.epochs * per_epoch if steps is None else steps
    # Models of one seed start apart, so that likeness between them is not a shared start.
    own_seed = zlib.crc32(f"{name}/{seed}".encode())
    with _setting(own_seed, threads):
        objective = kind(network.build(own_seed), data.images)
        generator = Generator().manual_seed(own_seed)
        before = evaluate(objective, held_out)
        start = time.perf_counter()
        curve = optimise(objective, data, steps, generator)
        seconds = time.perf_counter() - start
        after = evaluate(objective, held_out)
        logger.info(
            f"{name}: held-out loss {before:.4f} before and {after:.4f} after {seconds:.0f} s"
        )
        trained = objective.trained()
        record = {
            "name": name,
            "objective": kind.summary,
            "source": kind.source,
            "seed": seed,
            **asdict(kind.recipe),
            "epochs": round(steps / per_epoch, 2),
            "steps": steps,
            "seconds": round(seconds, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "loss_before": round(before, 4),
            "loss_after": round(after, 4),
            "loss_curve": curve,
            "knn": knn.accuracy_by_layer(trained),
        }
    out.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().contiguous() for key, value in trained.state_dict().items()}
    # safetensors' own writer makes files that only their owner may read.
    (out / f"{name}.safetensors").write_bytes(save(state))
    _write(record, out)
    return record


def _write(record: dict[str, Any], out: Path) -> None:
    path = out / f"{record['name']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _setting(seed: int, threads: int | None) -> Iterator[None]:
    """Seed torch for the heads' weights and set its threads; put both back afterwards."""
    usual = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(usual if threads is None else threads)
        try:
            yield
        finally:
            torch.set_num_threads(usual)
