"""Commands: attention metrics and maps averaged over images, from the summaries."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
