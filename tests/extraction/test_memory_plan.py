"""What schedulers are told an extraction needs, beside the rooms that it makes."""

from __future__ import annotations

import pytest

from tests.extraction.pictures_folder import UNANNOTATED
from vitfeat.models.shapes import Shape
from vitfeat.plan.needs import extraction_memory_mb
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import available_taps, plan_layout
from vitfeat.store.limits import kept_rows

TAPS = UNANNOTATED
SHAPE = Shape(depth=12, width=768, heads=12, patch=16, image_size=224)
GEOMETRY = Geometry(tuple(range(12)), 768, 12, (14, 14), has_cls=True, n_registers=0)
N_IMAGES = 3000
IDS = [f"{row:04d}.png" for row in range(N_IMAGES)]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"attention": 3},
        {"attention": 20, "block_input": 500},
        dict.fromkeys(TAPS, 100),
        {"attention": 10**6},
    ],
    ids=["none", "few", "two taps", "all taps", "more than there are"],
)
@pytest.mark.parametrize("batch_size", [32, 512])
def test_both_units_fit(limits: dict[str, int], batch_size: int) -> None:
    taps = available_taps(GEOMETRY, TAPS)
    layout = plan_layout(GEOMETRY, taps, N_IMAGES, "float16", kept_rows(limits, taps, IDS))
    rows = layout.block * max(1, batch_size // layout.block)
    units = 2 * layout.bytes_of(rows) / 2**20
    weights = SHAPE.parameters * 4 / 2**20
    told = extraction_memory_mb(SHAPE, batch_size, TAPS, "float16", limits, N_IMAGES)
    assert told > weights + units
