"""All pairs of models by CKA: Gram matrices kept, beside each pair computed from features.

python -m benchmarks.cka [--models 6] [--layers 12] [--images 1000] [--grid 14] [--width 384]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import zarr

from benchmarks.timing import in_turn, machine
from vitfeat.analysis.cka import cka
from vitfeat.analysis.gram import gram
from vitfeat.analysis.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.store import codec


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--grid", type=int, default=14)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    n, layers = options.images, options.layers
    features = (options.grid, options.grid, options.width)
    scratch = Path(tempfile.mkdtemp(dir="."))
    generator = np.random.default_rng(0)
    try:
        with codec.pipeline():
            group = zarr.create_group(scratch / "stores")
            for m in range(options.models):
                array = group.create_array(
                    str(m),
                    shape=(n, layers, *features),
                    dtype="float16",
                    chunks=(8, 1, *features),
                    shards=(32, layers, *features),
                    compressors=codec.compressors("float16"),
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

        def each_pair() -> None:
            # What a pair costs when nothing is kept: both models' features are read, their Gram
            # matrices made in float32 and compared, layer by layer.
            for a, b in combinations_with_replacement(range(options.models), 2):
                sides = []
                for m in (a, b):
                    matrices = []
                    for layer in range(layers):
                        x = np.asarray(group[str(m)][:, layer]).reshape(n, -1).astype(np.float32)
                        x -= x.mean(0)
                        k = x @ x.T
                        np.fill_diagonal(k, 0)
                        matrices.append(k.ravel())
                    sides.append(np.stack(matrices))
                _ = sides[0] @ sides[1].T

        pair = in_turn(ours, each_pair, rounds=options.rounds, warmup=0)
        print(machine() + "\n")
        print("| what | ours | from features | times faster (range) | target |")
        print("|---|---|---|---|---|")
        print(
            pair.row(
                f"all pairs of {options.models} models x {layers} layers, {n} images x "
                f"{int(np.prod(features)):,} features",
                ">= 10",
            )
        )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
