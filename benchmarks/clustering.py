"""k-means of every layer, beside a plain loop of scikit-learn calls over the same features.

The loop is what one would write: KMeans(n_clusters, n_init=10, random_state=seed).fit(x) for each
layer and seed, with the threads that scikit-learn and BLAS take by themselves; and the same held to
one thread. Features are in memory on both sides: overlapping clusters whose channels fall off in
variance, as those of ViTs do.

python -m benchmarks.clustering [--small] [--layers 12] [--images 5000] [--width 768] [--seeds 1]
"""

from __future__ import annotations

import argparse
import os

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks.timing import in_turn, machine
from vitfeat.numerics.kmeans import k_means


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="4 layers x 1,000 x 384, k = 20")
    options = parser.parse_args()
    if options.small:
        options.layers, options.images, options.width, options.clusters = 4, 1000, 384, 20
    k, seeds = options.clusters, range(options.seeds)
    layers = [features(options.images, options.width, k, layer) for layer in range(options.layers)]
    labels: dict[str, NDArray[np.int32]] = {}

    def ours() -> None:
        labels["ours"] = k_means(layers, k, seeds=seeds, threads=options.threads)

    def plain() -> None:
        labels["plain"] = np.array(
            [
                [KMeans(n_clusters=k, n_init=10, random_state=s).fit(x).labels_ for s in seeds]
                for x in layers
            ]
        )

    def plain_on_one_thread() -> None:
        with threadpool_limits(1):
            plain()

    print(machine() + f"; {options.threads} threads\n")
    print(
        f"{options.layers} layers x {options.images:,} x {options.width}, k = {k}, "
        f"seeds: {options.seeds}\n"
    )
    print("| against | ours | other | times faster (range) | target | images in the same cluster |")
    print("|---|---|---|---|---|---|")
    for name, other, target in (
        ("plain calls", plain, ">= 1"),
        ("plain calls on one thread", plain_on_one_thread, ""),
    ):
        pair = in_turn(ours, other, rounds=options.rounds, warmup=0)
        alike = (labels["ours"] == labels["plain"]).mean()
        print(f"{pair.row(name, target)} {alike:.3%} |", flush=True)


def features(n: int, width: int, clusters: int, seed: int) -> NDArray[np.float32]:
    """Draw clusters that overlap."""
    generator = np.random.default_rng(seed)
    deviations = np.arange(1, width + 1) ** -0.5
    centres = 0.5 * generator.standard_normal((clusters, width))
    x = centres[generator.integers(0, clusters, n)] + generator.standard_normal((n, width))
    return (x * deviations).astype(np.float32)


if __name__ == "__main__":
    main()
