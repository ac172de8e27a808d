"""The layout of SPair-71k."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.data.companions import PointRow
from vitfeat.data.folders import Tally
from vitfeat.data.listing import Listing

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.spec import DatasetSpec


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images."""
    raise NotImplementedError


def points(spec: DatasetSpec, index: Index) -> list[PointRow]:
    """Read the annotations of the index's images."""
    raise NotImplementedError
