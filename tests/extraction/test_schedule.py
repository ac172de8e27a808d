from __future__ import annotations

from itertools import pairwise

import pytest

from vitfeat.extraction.pipeline import schedule
from vitfeat.extraction.sink import required_taps
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import Layout, plan_layout

GEOMETRY = Geometry((0, 1), 8, 2, (2, 2), has_cls=True, n_registers=1)


def _layout(n_images: int, block: int) -> Layout:
    return Layout(plan_layout(GEOMETRY, ("cls",), n_images, "float16").arrays, n_images, block)


@pytest.mark.parametrize("n_images", [1, 7, 8, 22, 64])
@pytest.mark.parametrize("block", [1, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 20, 500])
def test_missing_blocks_are_covered_once(n_images: int, block: int, batch_size: int) -> None:
    layout = _layout(n_images, block)
    missing = [b for b in range(layout.n_blocks) if b % 3 != 1]
    plan = schedule(layout, missing, batch_size)
    rows = [row for batch in plan.all_batches for row in batch]
    assert all(a < b for a, b in pairwise(rows))
    assert {r for b in missing for r in layout.rows(b)} <= set(rows)
    assert all(0 < len(batch) <= batch_size for batch in plan.all_batches)
    for unit, batches in zip(plan.units, plan.batches, strict=True):
        assert [r for batch in batches for r in batch] == list(unit)
        # Whole blocks, and room for them in memory.
        assert unit.start % block == 0
        assert unit.stop % block == 0 or unit.stop == n_images
        assert len(unit) <= plan.unit_rows
    if batch_size < 2 * block:  # then a unit is a block, and no more than these are pushed
        assert set(rows) == {r for b in missing for r in layout.rows(b)}


@pytest.mark.parametrize("batch_size", [3, 5, 8, 20])
def test_batches_do_not_depend_on_where_a_job_stopped(batch_size: int) -> None:
    layout = _layout(64, 8)
    everything = schedule(layout, range(8), batch_size).all_batches
    for missing in ([5], [0, 7], [3, 4, 5], []):
        assert set(schedule(layout, missing, batch_size).all_batches) <= set(everything)


@pytest.mark.parametrize("batch_size", [3, 8, 20, 500])
def test_on_a_cpu_a_unit_is_a_block_whatever_the_batch(batch_size: int) -> None:
    layout = _layout(22, 8)
    plan = schedule(layout, [0, 2], batch_size, on_gpu=False)
    assert plan.units == [range(8), range(16, 22)]
    assert plan.unit_rows == 8
    assert all(len(batch) <= min(batch_size, 8) for batch in plan.all_batches)
    assert [r for batch in plan.all_batches for r in batch] == [*range(8), *range(16, 22)]


@pytest.mark.parametrize(
    ("taps", "raw"),
    [
        (("cls",), {"tokens"}),
        (("registers", "spatial"), {"tokens"}),
        (("attention",), {"attention"}),
        (("attention_summary",), {"attention"}),
        (("cls", "attention_summary"), {"tokens", "attention"}),
        (("attention_mean",), {"attention"}),
        (("attn_branch",), {"attn_branch"}),
        (("block_input", "mlp_branch"), {"block_input", "mlp_branch"}),
        (("residual_norms",), {"block_input", "attn_branch", "mlp_branch"}),
    ],
)
def test_only_what_is_needed_is_tapped(taps: tuple[str, ...], raw: set[str]) -> None:
    assert required_taps(plan_layout(GEOMETRY, taps, 4, "float16")) == raw
