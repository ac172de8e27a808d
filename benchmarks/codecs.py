"""Codecs for feature chunks: size, and seconds to write a block and to read a layer.

python -m benchmarks.codecs STORE.zarr      (a store with `spatial`, from a trained model)
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

import vitfeat
from benchmarks.timing import machine

CODECS: dict[str, Any] = {
    "none": None,
    "zstd 1": ZstdCodec(level=1),
    "blosc lz4, shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=2),
    "blosc lz4, bit shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
    "blosc zstd 1, bit shuffle": BloscCodec(
        cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2
    ),
    "blosc zstd 3, bit shuffle": BloscCodec(
        cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2
    ),
}
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    source = vitfeat.open(options.store)["spatial"]
    assert source.shards is not None
    block = np.asarray(source[: source.shards[0]])
    rows = len(block)
    print(f"{machine()}; block {block.shape} float16, {block.nbytes / 2**20:.0f} MiB\n")
    print("| codec | pipeline | size | write a block | read a layer |")
    print("|---|---|---|---|---|")
    scratch = Path(tempfile.mkdtemp(dir="."))
    try:
        for pipeline, path in PIPELINES.items():
            for name, compressor in CODECS.items():
                with zarr.config.set({"codec_pipeline.path": path}):
                    array = zarr.create_array(
                        scratch / "a.zarr",
                        shape=(rows * options.rounds, *block.shape[1:]),
                        dtype="float16",
                        chunks=source.chunks,
                        shards=source.shards,
                        compressors=[c for c in (compressor, Crc32cCodec()) if c],
                        overwrite=True,
                    )
                write, read = [], []
                for k in range(options.rounds):
                    started = time.perf_counter()
                    array[k * rows : (k + 1) * rows] = block
                    write.append(time.perf_counter() - started)
                for k in range(options.rounds):
                    started = time.perf_counter()
                    _ = array[k * rows : (k + 1) * rows, k % block.shape[1]]
                    read.append(time.perf_counter() - started)
                stored = sum(
                    f.stat().st_size for f in (scratch / "a.zarr").rglob("*") if f.is_file()
                )
                print(
                    f"| {name} | {pipeline} | {stored / block.nbytes / options.rounds:.3f} | "
                    f"{statistics.median(write) * 1e3:.0f} ms | "
                    f"{statistics.median(read) * 1e3:.1f} ms |"
                )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
