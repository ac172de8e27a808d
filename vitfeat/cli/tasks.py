"""Commands: all tasks together: one table, and figures."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
