"""Reading a store beside an earlier vitfeat, each with the store that it has written itself.

Both write the same random numbers through their own writer: CLS and spatial tokens of a ViT-B/16.
Each read is a process of its own, in turn: opening and the first read (what is imported for them
does not count), then the median of further ones. With `--drop` the store's files are taken out of
the page cache before the first.

git worktree add EARLIER COMMIT
python -m benchmarks.earlier EARLIER [--images 2000] [--rounds 5] [--drop] [--scratch FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS, LAYERS, GRID = 768, 12, (14, 14)
SLAB = 256
# Further reads of a process, and milliseconds after which there is no further one.
AGAIN, ENOUGH = 5, 1000


def in_slabs(array: Any) -> None:
    """Read all of an array, some images at a time."""
    for start in range(0, array.shape[0], SLAB):
        np.asarray(array[start : start + SLAB])


CASES: dict[str, Callable[[Any], object]] = {
    "one layer of all images": lambda array: array[:, 5],
    "one layer of one image": lambda array: array[array.shape[0] // 2, 5],
    "all layers of one image": lambda array: array[array.shape[0] // 2],
    "all of it, 256 images at a time": in_slabs,
}


def write(path: Path, tap: str, n_images: int) -> None:
    """Write a store of random numbers, with CLS tokens alone or with spatial ones too."""
    from vitfeat.store.arrays import Geometry
    from vitfeat.store.layout import plan_layout

    # Where earlier ones have them.
    from vitfeat.store.writer import Rows, open_writer

    taps = ("cls",) if tap == "cls" else ("cls", "spatial")
    geometry = Geometry(tuple(range(LAYERS)), CHANNELS, 12, GRID, has_cls=True, n_registers=0)
    layout = plan_layout(geometry, taps, n_images, "float16")
    ids = [f"{i:06d}.jpg" for i in range(n_images)]
    rows = Rows(ids, np.full(n_images, -1), {}, [])
    view = {"kind": "square"}
    data = {"fingerprint": "ab" * 32, "n_images": n_images}
    request = {"layers": list(range(LAYERS)), "data": data, "view": view}
    noise = np.random.default_rng(0).standard_normal(
        (layout.block, LAYERS, 1 + GRID[0] * GRID[1], CHANNELS), dtype=np.float32
    )
    noise = noise.astype(np.float16)
    with open_writer(path, layout, geometry, rows, request, "vit") as writer:
        for block in writer.missing_blocks():
            n, turned = len(layout.rows(block)), np.roll(noise, block, axis=-1)
            arrays = {"cls": turned[:n, :, 0], "spatial": turned[:n, :, 1:]}
            shapes = {a.name: a.shape for a in layout.arrays}
            writer.write_block(
                block,
                {name: arrays[name].reshape(n, *shape) for name, shape in shapes.items()},
                forward_images=n,
            )
        writer.seal()


def read(path: Path, name: str, case: str, *, dropped: bool) -> list[float]:
    """Return milliseconds: opening with the first read, and the median of further ones."""
    import vitfeat

    # Imports what is needed.
    array = vitfeat.open(path)[name]
    if dropped:
        drop(path)
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) <= AGAIN and sum(taken) < ENOUGH):
        started = time.perf_counter()
        if not taken:
            array = vitfeat.open(path)[name]
        CASES[case](array)
        taken.append(1e3 * (time.perf_counter() - started))
    return [taken[0], statistics.median(taken[1:])]


def run(tree: Path, *arguments: str) -> str:
    """Run a part of this file with the vitfeat of a tree, and return what it said last."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().rpartition("\n")[2]


def drop(store: Path) -> None:
    """Take a store's files out of the page cache."""
    for path in filter(Path.is_file, store.rglob("*")):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def cell(rounds: list[float]) -> str:
    """Return a median and range of milliseconds."""
    return f"{statistics.median(rounds):,.1f} ms ({min(rounds):,.1f} to {max(rounds):,.1f})"


def main() -> None:
    """Write the stores that are not there, read them in turn and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path, help="a checkout of the earlier vitfeat")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drop", action="store_true")
    parser.add_argument("--scratch", type=Path, help="where stores are kept for another go")
    parser.add_argument("--only", default="", help="arrays and reads that have this in their name")
    options = parser.parse_args()
    trees = {"now": Path(__file__).resolve().parent.parent, "earlier": options.tree.resolve()}
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = (options.scratch or Path(name)).resolve()
        stores = {
            (side, tap): scratch / side / f"{tap}_{options.images}.zarr"
            for side in trees
            for tap in ("cls", "cls_and_spatial")
        }
        for (side, tap), store in stores.items():
            if not store.exists():
                store.parent.mkdir(parents=True, exist_ok=True)
                run(trees[side], "--write", str(store), tap, str(options.images))
        said = run(trees["now"], "--machine")
        print(f"{said}; {options.images:,} images, {options.rounds} rounds\n")
        print("| array, store | read | first: earlier | now | again: earlier | now |")
        print(f"|{'---|' * 6}")
        arrays = (("cls", "cls"), ("cls", "cls_and_spatial"), ("spatial", "cls_and_spatial"))
        for array, tap in arrays:
            for case in CASES:
                if options.only not in f"{array} of {tap}: {case}":
                    continue
                taken: dict[str, list[list[float]]] = {side: [] for side in trees}
                for _ in range(options.rounds):
                    for side, rounds in taken.items():
                        said = run(
                            *(trees[side], "--read", str(stores[side, tap]), array, case),
                            str(int(options.drop)),
                        )
                        rounds.append(json.loads(said))
                columns = [
                    cell([r[when] for r in taken[side]])
                    for when in (0, 1)
                    for side in ("earlier", "now")
                ]
                print(f"| {array} of {tap} | {case} | {' | '.join(columns)} |", flush=True)


def child(part: str, *arguments: str) -> None:
    """Do what :func:`run` asks for."""
    if part == "--write":
        path, tap, n_images = arguments
        write(Path(path), tap, int(n_images))
    elif part == "--machine":
        from benchmarks.timing import machine

        print(machine())
    else:
        path, name, case, dropped = arguments
        print(json.dumps(read(Path(path), name, case, dropped=dropped == "1")))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("--write", "--read", "--machine"):
        child(*sys.argv[1:])
    else:
        main()
