"""Attention metrics: one fused pass beside a function a metric, and a store's summaries to tables.

python -m benchmarks.attention [--rounds 11] [--images 5000] [--classes 50] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.timing import in_turn, machine
from vitfeat.analyses.attention.job import write_attention
from vitfeat.analyses.attention.kernel import summarise
from vitfeat.analyses.attention.source import attention_of
from vitfeat.analyses.attention.stream import StreamingAttention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.store.arrays import SUMMARY_GROUP, Geometry
from vitfeat.store.create import Rows
from vitfeat.store.layout import plan_layout
from vitfeat.store.opening import open_store
from vitfeat.store.writer import open_writer

# ViT-B/16 at 224.
LAYERS, HEADS, GRID, PATCH = 12, 12, (14, 14), 16
TOKENS = Tokens(GRID)


# --- A straightforward implementation: a function a metric, each of which reads the attention ---


def renormalised(attention: Tensor) -> Tensor:
    """Rows of spatial queries over spatial keys; what sums to zero stays zero."""
    patches = attention[..., 1:, 1:]
    left = patches.sum(-1, keepdim=True)
    return torch.where(left > 0, patches / left, torch.zeros_like(patches))


def distance(attention: Tensor) -> Tensor:
    """Mean distance on the unit square."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in GRID), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1)
    return (renormalised(attention) * torch.cdist(places, places)).sum(-1).mean(-1)


def spatial_to_cls(attention: Tensor) -> Tensor:
    """Mean attention of spatial queries on CLS."""
    return attention[..., 1:, 0].mean(-1)


def cls_to_cls(attention: Tensor) -> Tensor:
    """Attention of CLS on itself."""
    return attention[..., 0, 0]


def deviation_positions(attention: Tensor) -> Tensor:
    """Deviation over spatial queries, mean over spatial keys."""
    return attention[..., 1:, 1:].std(-2, correction=1).mean(-1)


def deviation_heads(attention: Tensor) -> Tensor:
    """Deviation over heads, mean over spatial queries and keys."""
    return attention[..., 1:, 1:].std(-3, correction=1).mean((-2, -1))


def all_queries(attention: Tensor) -> Tensor:
    """Mean over all queries."""
    return attention.mean(-2)


def cls_query(attention: Tensor) -> Tensor:
    """Pick the CLS token's row."""
    return attention[..., 0, :].clone()


def spatial_queries(attention: Tensor) -> Tensor:
    """Mean over spatial queries."""
    return attention[..., 1:, :].mean(-2)


def spatial_queries_renormalised(attention: Tensor) -> Tensor:
    """Mean over spatial queries of renormalised rows."""
    return renormalised(attention).mean(-2).unflatten(-1, GRID)


def aligned(attention: Tensor) -> Tensor:
    """Renormalised maps moved so that the query is in the centre, mean over spatial queries."""
    rows, columns = GRID
    maps = renormalised(attention).unflatten(-1, GRID)
    total = maps.new_zeros(*maps.shape[:-3], 2 * rows - 1, 2 * columns - 1)
    for q in range(rows * columns):
        y, x = divmod(q, columns)
        window = total[..., rows - 1 - y : 2 * rows - 1 - y, columns - 1 - x : 2 * columns - 1 - x]
        window += maps[..., q, :, :]
    return total / (rows * columns)


SCALARS: tuple[Callable[[Tensor], Tensor], ...] = (
    distance,
    spatial_to_cls,
    cls_to_cls,
    deviation_positions,
    deviation_heads,
)
MAPS: tuple[Callable[[Tensor], Tensor], ...] = (
    all_queries,
    cls_query,
    spatial_queries,
    spatial_queries_renormalised,
    aligned,
)


def straightforward(attention: Tensor) -> dict[str, Tensor]:
    """All of them, by name; the offset is the first moment of the aligned map."""
    found = {f.__name__: f(attention) for f in (*SCALARS, *MAPS)}
    rows, columns = GRID
    found["offset_y"] = torch.einsum(
        "...yx,y->...", found["aligned"], torch.arange(1 - rows, rows).float()
    )
    found["offset_x"] = torch.einsum(
        "...yx,x->...", found["aligned"], torch.arange(1 - columns, columns).float()
    )
    return found


# --- The measurements ---


def softmax_noise(images: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Attention of random logits."""
    shape = (images, LAYERS, HEADS, TOKENS.n_tokens, TOKENS.n_tokens)
    scores = np.exp(2 * generator.standard_normal(shape, np.float32))
    scores /= scores.sum(-1, keepdims=True)
    return scores


def one_image(rounds: int) -> None:
    """Compare the fused pass with the straightforward one, on one thread."""
    attention = softmax_noise(1, np.random.default_rng(0))
    stream = StreamingAttention(TOKENS, patch_size=PATCH)
    tensor = torch.from_numpy(attention)
    stream.update(attention)
    found = stream.compute()
    for name, value in straightforward(tensor).items():
        ours = (found.means | found.maps)[name]
        np.testing.assert_allclose(ours, value[0].numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    pair = in_turn(
        lambda: stream.update(attention),
        lambda: [straightforward(layer) for layer in tensor.unbind(1)],
        rounds=rounds,
        warmup=3,
    )
    reading = in_turn(attention.sum, attention.sum, rounds=rounds, warmup=3).ours
    processor = processor_seconds(lambda: stream.update(attention), rounds)
    ours, other = pair.ours, pair.other
    print(f"| one image: metrics 1 to 5, offset, entropy, in one pass | {ms(ours)} | 12 ms |")
    print(f"| (its processor time) | {ms(processor)} | |")
    print(f"| the same without entropy, a function a metric (PyTorch) | {ms(other)} | |")
    print(f"| (times faster) | {pair.speed:.0f} | |")
    print(f"| (summing its attention once, NumPy) | {ms(reading)} | |", flush=True)


def processor_seconds(function: Callable[[], object], rounds: int) -> list[float]:
    """Return processor time of all threads, which other programs on the machine leave alone."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return seconds


def ms(seconds: list[float]) -> str:
    """Median and range in milliseconds."""
    median, least, most = (1000 * f(seconds) for f in (statistics.median, min, max))
    return f"{median:.1f} ms ({least:.1f} to {most:.1f})"


def write_summaries(path: Path, images: int, classes: int) -> int:
    """Write a store of summaries of softmax noise; return its uncompressed bytes."""
    geometry = Geometry(tuple(range(LAYERS)), 768, HEADS, GRID, True, 0)
    layout = plan_layout(geometry, ("attention_summary",), images, "float16")
    found = summarise(softmax_noise(layout.block, np.random.default_rng(0)), TOKENS)
    labels = np.arange(images, dtype=np.int64) * classes // images
    rows = Rows(
        [f"{i:06d}" for i in range(images)], labels, {c: f"class {c}" for c in range(classes)}, []
    )
    request = {
        "data": {"fingerprint": "noise", "n_images": images},
        "view": {"kind": "square", "size": [GRID[0] * PATCH, GRID[1] * PATCH]},
        "layers": list(range(LAYERS)),
    }
    with open_writer(path, layout, geometry, rows, request, "noise") as writer:
        for block in range(layout.n_blocks):
            n = len(layout.rows(block))
            # No chunk holds an image twice: what repeats from block to block is not compressed.
            part = {f"{SUMMARY_GROUP}/{name}": a[:n] for name, a in found.arrays.items()}
            writer.write_block(block, part, forward_images=n)
        writer.seal()
    return layout.n_bytes


def one_store(images: int, classes: int, rounds: int, folder: Path | None) -> None:
    """Reduce a store of summaries to a table and maps by class, beside reading it alone."""
    with tempfile.TemporaryDirectory(dir=folder or ".") as scratch:
        path = Path(scratch) / "noise" / "noise.zarr"
        raw = write_summaries(path, images, classes)
        stored = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())

        def reduce() -> None:
            write_attention(path, path.with_suffix(".csv"), path.with_suffix(".nc"), by_class=True)

        def read() -> None:
            for _ in attention_of(open_store(path)).pieces():
                pass

        pair = in_turn(reduce, read, rounds=rounds, warmup=1)
        what = f"{images:,} images, {raw / 1e9:.1f} GB of summaries ({stored / 1e9:.1f} GB on disk)"
        ours, other = (", ".join(f"{t:.1f} s" for t in sorted(s)) for s in (pair.ours, pair.other))
        print(f"| {what}, to a table and maps of {classes} classes | {ours} | 20 s |")
        (processor,) = processor_seconds(reduce, 1)
        print(f"| (its processor time, all threads) | {processor:.1f} s | |")
        print(f"| (reading them alone) | {other} | |")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--store-rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where the store is made for a while")
    options = parser.parse_args()
    print(f"{machine()}; ViT-B/16, {LAYERS} layers, {HEADS} heads, {TOKENS.n_tokens} tokens\n")
    print("| what | median | target |\n|---|---|---|")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        one_image(options.rounds)
    with threadpool_limits(2):
        one_store(options.images, options.classes, options.store_rounds, options.folder)


if __name__ == "__main__":
    main()
