"""The optimisation loop that all objectives share."""

from __future__ import annotations

import logging
import math

import torch
from torch import Generator
from torch.optim import AdamW

from vitfeat.demo.batches import Batch, epoch
from vitfeat.demo.objectives import Objective

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
