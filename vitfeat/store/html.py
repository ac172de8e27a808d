"""A store as a table for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore


def describe_html(store: FeatureStore) -> str:
    """Return a store as HTML."""
    return ""
