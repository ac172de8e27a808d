"""Commands: CKA with intervals, and other measures of similarity."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
