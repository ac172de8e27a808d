"""The layout of revisited Oxford and Paris."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.data.companions import RelevanceRow
from vitfeat.data.folders import Tally
from vitfeat.data.listing import Listing

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.spec import DatasetSpec


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images."""
    raise NotImplementedError


def relevance(spec: DatasetSpec, index: Index) -> list[RelevanceRow]:
    """Read the annotations of the index's images."""
    raise NotImplementedError
