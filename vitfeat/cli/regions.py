"""Commands: annotated regions: clusters of their features, and attention against their masks."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
