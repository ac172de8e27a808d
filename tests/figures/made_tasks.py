"""Tables of all tasks whose values tell where they come from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from tests.figures.made_tables import Made, value
from vitfeat.analyses.rows import ScoreRow

PEAKS = {
    "clustering": 0.9,
    "knn": 1.0,
    "linear_probe": 1.0,
    "retrieval": 0.9,
    "video": 0.6,
    "keypoints": 0.7,
    "regions": 0.8,
    "saliency": 0.95,
}
"""Depth at which models are about best."""

TOKENS = ("cls", "mean")
LEVELS = ("easy", "medium", "hard")
ALPHAS = ("0.1", "0.05", "0.01")
VIDEO = ("jf_mean", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
CATEGORIES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair")
CATEGORIES += ("cow", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "train")
CATEGORIES += ("tvmonitor",)
SEQUENCES = ("bike-packing", "blackswan", "bmx-trees", "breakdance", "camel")


def smooth(task: str, made: Made, layer: int, *where: int) -> float:
    """A value from 0.1 to 0.9 that rises to the task's depth and falls behind it."""
    level = zlib.crc32(f"{task} {made.model.id}".encode()) / 2**32
    peak = PEAKS[task] + 0.3 * (zlib.crc32(f"{made.model.id} {task}".encode()) / 2**32 - 0.5)
    depth = layer / max(made.depth - 1, 1)
    trained = 0.35 if made.model.family == "random" else 1
    noise = 0.02 * value(made.model.id, layer, *where)
    fall = 0.45 * (depth - peak) ** 2
    return trained * max(0.03, 0.35 + 0.5 * level - fall + noise - 0.03 * sum(where[:2]))


def task_rows(
    task: str, made: Sequence[Made], dataset: str = "digits", *, groups: bool = True
) -> list[ScoreRow]:
    """The rows of some models in the order of their tables."""
    return [row for one in made for row in _of(task, one, dataset) if groups or not row.group]


def _of(task: str, one: Made, dataset: str) -> Iterator[ScoreRow]:
    for layer in range(one.depth):
        for features, variant, score, group, n, number in _scores(task, one, layer):
            yield ScoreRow(
                task, one.model.id, dataset, layer, features, variant, score, group, n, number
            )


def _scores(task: str, one: Made, layer: int) -> Iterator[tuple[str, str, str, str, int, float]]:
    def at(*where: int) -> float:
        return smooth(task, one, layer, *where)

    tokens = [kind for kind in TOKENS if one.has_cls or kind != "cls"]
    if task == "knn":
        for a, kind in enumerate(tokens):
            for b, k in enumerate((10, 20, 100, 200)):
                yield kind, f"k={k}", "top1", "", 599, at(a, b)
                yield kind, f"k={k}", "top5", "", 599, (1 + at(a, b)) / 2
    elif task == "linear_probe":
        for a, kind in enumerate(tokens):
            penalty = f"penalty={10.0 ** -(1 + layer % 3):g}"
            yield kind, penalty, "top1", "", 599, at(a, 0)
            yield kind, penalty, "top5", "", 599, (1 + at(a, 0)) / 2
    elif task == "retrieval":
        for a, kind in enumerate(tokens):
            for b, level in enumerate(LEVELS):
                for c, score in enumerate(("map", "mp@1", "mp@5", "mp@10")):
                    yield kind, level, score, "", 70 - b, at(a, 3 * b, c)
                for query in range(4):
                    yield kind, level, "ap", f"query-{query}", 1, at(a, 3 * b, query)
    elif task == "video":
        for b, score in enumerate(VIDEO):
            yield "spatial", "", score, "", 61, at(0, b)
            for c, sequence in enumerate(SEQUENCES):
                for item in range(1 + c % 2):
                    group = f"{sequence}/{item + 1}"
                    yield "spatial", "", score, group, 50, at(c, b, item)
    elif task == "keypoints":
        for b, alpha in enumerate(ALPHAS):
            for c, score in enumerate(("pck_image", "pck_point")):
                yield "spatial", alpha, score, "", (12_234, 88_328)[c], at(0, 6 * b, c)
                for d, category in enumerate(CATEGORIES):
                    yield "spatial", alpha, score, category, 700, at(d % 5, 6 * b, d, c)
                chance = score.replace("pck", "chance")
                yield "spatial", alpha, chance, "", (12_234, 88_328)[c], 0.06 / (1 + b)
            yield "spatial", alpha, "ties", "", 88_328, 0.01
    elif task == "clustering":
        for a, kind in enumerate(tokens):
            for c, score in enumerate(("nmi", "ari", "purity")):
                seeds = [at(a, c, seed) for seed in range(3)]
                yield kind, "k=10", score, "", 599, sum(seeds) / 3
                yield kind, "k=10", f"{score}_shuffled", "", 599, 0.05
                for seed, number in enumerate(seeds):
                    yield kind, "k=10", score, f"seed={seed}", 599, number
    elif task == "regions":
        for b, level in enumerate(("object", "part")):
            for c, score in enumerate(("nmi", "ari", "purity")):
                seeds = [at(2 * b, 2 * c, seed, seed) for seed in range(3)]
                yield "regions", level, score, "", 3000, sum(seeds) / 3
                for seed, number in enumerate(seeds):
                    yield "regions", level, score, f"seed={seed}", 3000, number
    elif task == "saliency":
        for a, kind in enumerate(("attn_cls", "attn_mean", "attn_centre")):
            if kind == "attn_cls" and not one.has_cls:
                continue
            heads = [at(a, 0, head, head) - 0.05 * (head % 3) for head in range(one.heads)]
            for head, number in enumerate(heads):
                yield kind, "head", "iou", str(head), 500, number
            yield kind, "merged", "iou", "", 500, sum(heads) / len(heads)
            yield kind, "best_head", "iou", "", 500, max(heads)
            yield kind, "best_per_image", "iou", "", 500, max(heads) + 0.05
            yield kind, "merged_paper", "iou", "", 500, max(heads) - 0.05
            yield kind, "best_head", "iou_chance", "", 500, 0.1 + 0.01 * a
            yield kind, "", "iou_all", "", 500, 0.2
