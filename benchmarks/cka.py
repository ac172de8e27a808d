"""All pairs of models by CKA: Gram matrices kept, beside each pair computed from features.

The others are timed on one pair of models and multiplied by the number of pairs: a function
cka(x, y) called for every two layers, and the same with the Gram matrices of a pair's 24 layers
made once.

python -m benchmarks.cka [--models 6] [--layers 12] [--images 1000] [--grid 7] [--width 192]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks.timing import Pair, in_turn, machine
from vitfeat.analyses.cka.compute import cka
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.store import shards


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--grid", type=int, default=7)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    n, layers = options.images, options.layers
    features = (options.grid, options.grid, options.width)
    scratch = Path(tempfile.mkdtemp(dir="."))
    generator = np.random.default_rng(0)
    try:
        group = zarr.create_group(scratch / "stores")
        for m in range(options.models):
            array = group.create_array(
                str(m),
                shape=(n, layers, *features),
                dtype="float16",
                chunks=(8, 1, *features),
                shards=(32, layers, *features),
                compressors=shards.compressors("float16"),
            )
            for start in range(0, n, 32):
                stop = min(start + 32, n)
                block = generator.standard_normal((stop - start, layers, *features), np.float32)
                array[start:stop] = block.astype(np.float16)

        def ours() -> None:
            files = []
            for m in range(options.models):
                array = group[str(m)]
                path = scratch / f"{m}.safetensors"
                meta = GramMeta(str(m), "d", "spatial", "images", str(m))
                grams = (
                    gram(lambda a, b, layer=layer: np.asarray(array[a:b, layer]), n)  # noqa: B023
                    for layer in range(layers)
                )
                write_gram_file(path, list(range(layers)), grams, meta)
                files.append(GramFile(path))
            for a, b in combinations_with_replacement(files, 2):
                cka(a, b)

        def features_of(model: int, layer: int) -> NDArray[np.float32]:
            return np.asarray(group[str(model)][:, layer]).reshape(n, -1).astype(np.float32)

        def centred_gram(x: NDArray[np.float32]) -> NDArray[np.float32]:
            x = x - x.mean(0)
            k = x @ x.T
            np.fill_diagonal(k, 0)
            return k

        def by_layer() -> None:
            for i in range(layers):
                x = features_of(0, i)
                for j in range(layers):
                    k, other = centred_gram(x), centred_gram(features_of(1, j))
                    _ = np.vdot(k, other) / np.sqrt(np.vdot(k, k) * np.vdot(other, other))

        def by_model() -> None:
            sides = [
                np.stack([centred_gram(features_of(m, layer)).ravel() for layer in range(layers)])
                for m in (0, 1)
            ]
            _ = sides[0] @ sides[1].T

        n_pairs = options.models * (options.models + 1) // 2
        print(machine() + "\n")
        print("| all pairs | ours | from features | times faster (range) | target |")
        print("|---|---|---|---|---|")
        for name, other, target in (
            ("cka(x, y) for every two layers", by_layer, ">= 10"),
            ("each model pair, Gram matrices shared within it", by_model, ""),
        ):
            pair = in_turn(ours, other, rounds=options.rounds, warmup=0)
            scaled = Pair(pair.ours, [s * n_pairs for s in pair.other])
            print(scaled.row(f"against {name}", target), flush=True)
        print(
            f"\n{options.models} models x {layers} layers, {n} images x "
            f"{int(np.prod(features)):,} features, {n_pairs} pairs"
        )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
