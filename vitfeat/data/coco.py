"""The layout of COCO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.data.companions import RegionRow
from vitfeat.data.folders import Tally
from vitfeat.data.listing import Listing

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.spec import DatasetSpec


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images."""
    raise NotImplementedError


def regions(spec: DatasetSpec, index: Index) -> list[RegionRow]:
    """Read the annotations of the index's images."""
    raise NotImplementedError
