"""The model card of the demo models, written from the records that training left."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vitfeat.demo.network import NAMES, TRAINED, WEIGHTS
from vitfeat.errors import ModelError

TITLES = {
    "supervised": "Supervised",
    "clip": "CLIP",
    "dino": "DINO",
    "moco": "MoCo v3",
    "mae": "MAE",
    "beit": "BEiT",
    "random": "Untrained",
}

_INTRODUCTION = """\
# Demo models

Six tiny Vision Transformers, each really trained by its own objective on the same handwritten
digits, and the same network untrained. vitfeat ships them so that every analysis can be tried at
once, offline and on two CPU cores. This page is written by `vitfeat.demo.card.render()` from the
records beside the weights; edit that, not this.

## Architecture

All seven are timm's `VisionTransformer`: 32x32 RGB input, patches of 4x4 (8x8 = 64 spatial tokens
and CLS), width 64, 6 blocks, 4 heads, MLP ratio 4, learned absolute position embedding, final
norm, no classifier, float32 (about 1.2 MB each). Pixels in 0..1 are normalised with mean 0.5 and
standard deviation 0.5 per channel. Only backbones are stored (DINO's is the teacher's); heads,
projectors, decoders, second encoders and the text tower took part in training alone. MoCo v3's
position embedding was set to sines and cosines and kept fixed."""

_DATA = """\
## Data

scikit-learn's `load_digits`: 1,797 handwritten digits of 8x8 pixels, the test part of "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
1998). They are enlarged to 32x32 RGB (bicubic). Within each class, in the dataset's order, the
second of every three images is test: 1,198 train, 599 test. Models saw the train split only;
labels reached only the supervised model and, as captions, CLIP. The test split serves the
held-out losses and the k-NN queries below. The recipes of DINO (five tried) and BEiT (two tried)
were chosen with those k-NN scores in view, so theirs are a little optimistic."""

_RECIPES = """\
AdamW, a tenth of the steps of linear warm-up and then a cosine, gradients clipped at norm 1.
Augmentation is by crops (all), small rotations (all but MAE), and shears, noise and, in some,
changes of brightness and blur (all but MAE and BEiT); never flips, which digits do not survive."""

_LOSSES = """\
Mean loss on held-out batches, always the same ones with the same views, before the first step and
after the last: nats, but for MAE's squared error of normalised pixels. Losses of different
objectives cannot be compared with each other. DINO's is a cross entropy with a target that moves
with its teacher; CLIP's and MoCo's are 0 for a perfect model."""

_SCORES = """\
20 nearest neighbours by cosine distance, plain votes, train split as bank, test split as queries,
on the features at each block's output, before the final norm."""

_USE = """\
## Intended use and limits

For trying, testing and teaching vitfeat: looking at attention, representations across layers and
the likeness of differently trained models, where a run takes seconds. The models know nothing but
small grey digits. Nothing about the published models of the same names follows from them: those
are hundreds of times larger, saw other data, and were trained for far longer. Not for reading
digits in earnest.

## Retraining

`vitfeat.demo.train.train(name, out)` repeats any of them. The same seed, threads, torch version
and machine give the same bytes; elsewhere the scores agree within noise.

## Licences

Data: CC BY 4.0 (UCI Optical Recognition of Handwritten Digits). Weights: MIT, as vitfeat."""


def render() -> str:
    """Write the whole of ``docs/demo_models.md``, with tables of the records of training."""
    records = {name: _record(name) for name in NAMES}
    trained = [records[name] for name in TRAINED]
    recipes = _table(
        ["Model", "Epochs", "Steps", "Batch", "Rate", "Seed", "Seconds"],
        (
            [
                TITLES[r["name"]],
                f"{r['epochs']:g}",
                str(r["steps"]),
                str(r["batch_size"]),
                f"{r['learning_rate']:g}",
                str(r["seed"]),
                f"{r['seconds']:.0f}",
            ]
            for r in trained
        ),
    )
    losses = _table(
        ["Model", "Before", "After"],
        ([TITLES[r["name"]], f"{r['loss_before']:.3f}", f"{r['loss_after']:.3f}"] for r in trained),
    )
    machine = (
        f"Times are for 2 CPU cores ({trained[0]['threads']} threads, "
        f"torch {trained[0]['torch'].partition('+')[0]}), "
        "shared with other work during the trainings of DINO, MoCo v3 and BEiT, which it slowed."
    )
    parts = [
        _INTRODUCTION,
        _DATA,
        "## Training",
        "\n".join(
            f"- **{TITLES[r['name']]}** (`{r['name']}`): {r['objective']} ({r['source']})."
            for r in trained
        ),
        _RECIPES,
        recipes,
        machine,
        "## Loss before and after",
        _LOSSES,
        losses,
        "## k-NN accuracy by layer (%)",
        _SCORES,
        "### CLS token",
        _scores(records, "cls"),
        "### Mean of the spatial tokens",
        _scores(records, "mean"),
        _USE,
    ]
    return "\n\n".join(parts) + "\n"


def _record(name: str) -> dict[str, Any]:
    path = WEIGHTS / f"{name}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}: reinstall vitfeat") from error
    return record


def _scores(records: dict[str, dict[str, Any]], kind: str) -> str:
    depth = len(records["random"]["knn"][kind])
    return _table(
        ["Model", *(f"Block {i + 1}" for i in range(depth))],
        (
            [TITLES[name], *(f"{100 * score:.1f}" for score in record["knn"][kind])]
            for name, record in records.items()
        ),
    )


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Lay out a Markdown table: first column left, the others right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
