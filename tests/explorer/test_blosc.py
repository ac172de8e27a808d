"""The page's own reader of Blosc, beside numcodecs."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numcodecs import blosc

pytestmark = pytest.mark.browser

# Chunks from a list of files, decoded to the same names with `.out`, or what is wrong with them.
RUN = """
import { readFileSync, writeFileSync } from "node:fs";
import { Blosc } from "./blosc.mjs";
const told = JSON.parse(readFileSync("names.json", "utf8")).map((name) => {
  try {
    writeFileSync(`${name}.out`, new Blosc().decode(new Uint8Array(readFileSync(name))));
    return "";
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(told));
"""


def decoded(root: Path, folder: Path, chunks: list[bytes]) -> list[bytes | str]:
    """Decode chunks with the page's code in node; what it says where it cannot."""
    names = [f"chunk-{number}" for number in range(len(chunks))]
    for name, chunk in zip(names, chunks, strict=True):
        (folder / name).write_bytes(chunk)
    (folder / "names.json").write_text(json.dumps(names))
    (folder / "run.mjs").write_text(RUN)
    source = root / "explorer" / "src" / "blosc.ts"
    build = ["npx", "--no-install", "esbuild", str(source), f"--outfile={folder / 'blosc.mjs'}"]
    subprocess.run([*build, "--format=esm", "--log-level=error"], cwd=root / "explorer", check=True)
    told = subprocess.run(["node", "run.mjs"], cwd=folder, check=True, stdout=subprocess.PIPE)
    return [
        error or (folder / f"{name}.out").read_bytes()
        for name, error in zip(names, json.loads(told.stdout), strict=True)
    ]


def test_every_form_of_chunk_is_read_as_numcodecs_reads_it(root: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays, chunks = [], []
    for kind, count, spread in itertools.product(
        ("f2", "f4", "f8", "u1", "i8"), (1, 7, 8, 129, 1000, 1024, 33333), (0, 3, 1e4)
    ):
        array = np.round(generator.standard_normal(count) * spread).astype(kind)
        for shuffle, block in itertools.product((0, 1, 2), (0, 4096)):
            arrays.append(array.tobytes())
            chunks.append(blosc.compress(array, b"lz4", 5, shuffle, block, array.dtype.itemsize))
    for number, read in enumerate(decoded(root, tmp_path, chunks)):
        assert read == arrays[number] == blosc.decompress(chunks[number]), number


def test_a_chunk_that_is_cut_or_of_another_compressor_is_refused(
    root: Path, tmp_path: Path
) -> None:
    array = np.arange(5000, dtype="f4")
    whole = blosc.compress(array, b"lz4", 5, 2, 0, 4)
    other = blosc.compress(array, b"zstd", 5, 2, 0, 4)
    # The first block's first stream has a match that reaches before its start.
    damaged = bytearray(blosc.compress(np.zeros(5000, "f4"), b"lz4", 5, 0, 0, 4))
    start = int.from_bytes(damaged[16:20], "little")
    damaged[start + 6 : start + 8] = b"\xff\xff"
    assert decoded(root, tmp_path, [whole[:-9], other, bytes(damaged)]) == [
        "a chunk of Blosc is cut off",
        "a chunk of Blosc is not of LZ4",
        "a chunk of Blosc is damaged",
    ]
