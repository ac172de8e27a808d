"""Commands: objects followed through videos."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
