from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from tests.store.filled import ONE_AN_IMAGE
from vitfeat.store.arrays import NORMS_GROUP, SUMMARY_GROUP, Geometry
from vitfeat.store.layout import TAPS, Layout, available_taps, plan_layout

S16 = Geometry(tuple(range(12)), 384, 6, (14, 14), has_cls=True, n_registers=0)
GEOMETRIES = {
    "tiny": Geometry((0, 1), 16, 2, (2, 3), has_cls=True, n_registers=0),
    "S/16": S16,
    "B/14 with registers": Geometry(tuple(range(12)), 768, 12, (37, 37), True, 4),
    "L/16 without CLS": Geometry(tuple(range(24)), 1024, 16, (24, 24), False, 0),
    "one layer of H/14": Geometry((31,), 1280, 16, (16, 16), True, 0),
}


@pytest.mark.parametrize("name", list(GEOMETRIES))
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("n_images", [1, 7, 100, 5000])
@pytest.mark.parametrize("taps", [("cls",), ("cls", "spatial"), ONE_AN_IMAGE])
def test_invariants(name: str, dtype: str, n_images: int, taps: tuple[str, ...]) -> None:
    geometry = GEOMETRIES[name]
    found = available_taps(geometry, taps)
    if not found:
        return
    layout = plan_layout(geometry, found, n_images, dtype)
    # Blocks cover every row once, in order.
    rows = [row for block in range(layout.n_blocks) for row in layout.rows(block)]
    assert rows == list(range(n_images))
    assert layout.block & (layout.block - 1) == 0
    assert layout.block < 2 * n_images
    for array in layout.arrays:
        chunk, shard = layout.chunk_shape(array), layout.shard_shape(array)
        assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
        assert len(shard) == len(array.dims) == len(array.shape) + 1
        # Whole blocks, a power of two of them.
        blocks, rest = divmod(shard[0], layout.block)
        assert (rest, blocks & (blocks - 1), shard[1:]) == (0, 0, array.shape)
        assert shard[0] <= 8192
        assert layout.n_shards(array) == -(-n_images // shard[0])
        for shard_number in (0, layout.n_shards(array) - 1):
            blocks_of = layout.blocks_of(array, shard_number)
            assert all(shard_number in layout.shards_of(array, block) for block in blocks_of)
        # One layer a chunk, all layers a shard.
        assert chunk[1] == 1
        assert chunk[2:] == array.shape[1:]
        size = np.dtype(array.dtype).itemsize
        assert array.bytes_per_entry == prod(array.shape) * size
        # One image may be larger than the bounds; several may not.
        assert prod(chunk) * size <= 4 * 2**20 or chunk[0] == 1
        assert prod(shard) * size <= 64 * 2**20 or layout.block == 1
        # A shard twice as large would be above it, or longer than the dataset.
        doubled = 2 * prod(shard) * size > 64 * 2**20 or shard[0] >= n_images
        assert doubled or shard[0] == 8192
        assert chunk[0] <= max(layout.block, 512)
    assert layout.n_bytes == sum(n_images * a.bytes_per_entry for a in layout.arrays)


def test_vit_s16_by_hand() -> None:
    layout = plan_layout(S16, ("cls", "spatial"), 5000, "float16")
    cls, spatial = layout.arrays
    # 12 layers x 384 channels x 2 bytes, and 196 times that.
    assert cls.bytes_per_entry == 9216
    assert spatial.bytes_per_entry == 1_806_336
    # 64 MiB hold 37 images of all layers: blocks of 32. 5000 / 32 = 156.25.
    assert (layout.block, layout.n_blocks) == (32, 157)
    assert layout.rows(156) == range(4992, 5000)
    # One layer is 150 528 bytes: 27 fit into 4 MiB, a power of two 16.
    assert layout.chunk_shape(spatial) == (16, 1, 14, 14, 384)
    assert layout.shard_shape(spatial) == (32, 12, 14, 14, 384)
    # 64 MiB hold 7,281 images' CLS tokens of all layers: shards of 4,096, 128 blocks each. Their
    # chunks are within 128 KiB: 128 images of 768 bytes would be 96 KiB, 170 fit.
    assert layout.shard_shape(cls) == (4096, 12, 384)
    assert layout.chunk_shape(cls) == (128, 1, 384)
    assert layout.chunk_counts(cls) == (32, 12, 1)
    assert (layout.is_gathered(cls), layout.is_gathered(spatial)) == (True, False)
    assert layout.blocks_of(cls, 1) == range(128, 157)
    assert layout.shards_of(cls, 156) == range(1, 2)
    assert layout.n_bytes == 5000 * (9216 + 1_806_336)
    assert layout.bytes_of(32) == 32 * (9216 + 1_806_336)


def test_attention_of_vit_s16_by_hand() -> None:
    layout = plan_layout(S16, ("attention",), 1000, "float16")
    (attention,) = layout.arrays
    assert attention.shape == (12, 6, 197, 197)
    # 5 588 496 bytes an image: 12 of them are 64 MiB, a power of two 8.
    assert layout.block == 8
    # 465 708 bytes a layer: 9 of them are 4 MiB.
    assert layout.chunk_shape(attention) == (8, 1, 6, 197, 197)


def test_dimensions() -> None:
    geometry = Geometry((0, 1), 16, 3, (2, 5), has_cls=True, n_registers=4)
    layout = plan_layout(geometry, ONE_AN_IMAGE, 10, "float16")
    found = {a.name: (a.dims[2:], a.shape[1:], a.dtype) for a in layout.arrays}
    assert all(a.dims[:2] == ("image", "layer") for a in layout.arrays)
    assert all(a.shape[0] == 2 for a in layout.arrays)
    s = f"{SUMMARY_GROUP}/"
    n = f"{NORMS_GROUP}/"
    kinds = {
        "cls": (("channel",), (16,), "float16"),
        "registers": (("register", "channel"), (4, 16), "float16"),
        "spatial": (("y", "x", "channel"), (2, 5, 16), "float16"),
    }
    assert found == {
        **kinds,
        "attention": (("head", "query", "key"), (3, 15, 15), "float16"),
        "attention_mean": (("query", "key"), (15, 15), "float16"),
        "attention_centre": (("head", "key"), (3, 15), "float32"),
        **{f"block_input/{kind}": facts for kind, facts in kinds.items()},
        **{f"attn_branch/{kind}": facts for kind, facts in kinds.items()},
        **{f"mlp_branch/{kind}": facts for kind, facts in kinds.items()},
        **{
            n + name: (("token",), (15,), "float32")
            for name in ("attn_skip", "attn_branch", "mlp_skip", "mlp_branch")
        },
        s + "prefix_query": (("head", "prefix", "key"), (3, 5, 15), "float32"),
        s + "spatial_query": (("head", "key"), (3, 15), "float32"),
        s + "spatial_query_renormalised": (("head", "y", "x"), (3, 2, 5), "float32"),
        s + "aligned": (("head", "dy", "dx"), (3, 3, 9), "float32"),
        s + "n_null": (("head",), (3,), "float32"),
        s + "deviation_positions": (("head",), (3,), "float32"),
        s + "deviation_heads": ((), (), "float32"),
        s + "deviation_heads_all": ((), (), "float32"),
        s + "entropy": (("head",), (3,), "float32"),
    }


@pytest.mark.parametrize(
    ("heads", "grid", "n_prefix", "absent"),
    [
        (1, (2, 2), 1, {"deviation_heads", "deviation_heads_all"}),
        (2, (1, 1), 1, {"deviation_positions"}),
        (2, (2, 2), 0, {"prefix_query"}),
        (2, (2, 2), 1, set()),
    ],
)
def test_summaries_that_are_not_defined_have_no_array(
    heads: int, grid: tuple[int, int], n_prefix: int, absent: set[str]
) -> None:
    """An array that nothing fills would be stored as it stood in memory."""
    geometry = Geometry((0,), 8, heads, grid, has_cls=bool(n_prefix), n_registers=0)
    arrays = plan_layout(geometry, ("attention_summary",), 4, "float32").arrays
    names = {a.name.removeprefix(f"{SUMMARY_GROUP}/") for a in arrays}
    conditional = {"deviation_heads", "deviation_heads_all", "deviation_positions", "prefix_query"}
    assert conditional - names == absent


def test_taps_that_a_model_has() -> None:
    assert available_taps(GEOMETRIES["B/14 with registers"], reversed(TAPS)) == TAPS
    assert available_taps(S16, TAPS) == ("cls", "spatial", *TAPS[3:])
    without = GEOMETRIES["L/16 without CLS"]
    assert available_taps(without, TAPS) == ("spatial", *TAPS[3:])
    at_once = replace(S16, has_branches=False)
    assert available_taps(at_once, TAPS) == ("cls", "spatial", *TAPS[3:7], "regions")
    names = [a.name for a in plan_layout(without, ("mlp_branch",), 4, "float16").arrays]
    assert names == ["mlp_branch/spatial"]
    assert available_taps(without, ("cls",)) == ()


def test_tokens_are_counted() -> None:
    geometry = GEOMETRIES["B/14 with registers"]
    assert (geometry.n_prefix, geometry.n_tokens) == (5, 5 + 37 * 37)
    assert GEOMETRIES["L/16 without CLS"].n_tokens == 576


def test_an_image_larger_than_a_shard_is_a_block_of_its_own() -> None:
    huge = Geometry(tuple(range(40)), 1536, 24, (37, 37), has_cls=True, n_registers=4)
    layout = plan_layout(huge, ("spatial",), 10, "float32")
    assert (layout.block, layout.n_blocks) == (1, 10)
    assert Layout(layout.arrays, 10, 1).chunk_rows(layout.arrays[0]) == 1
