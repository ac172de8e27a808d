"""Commands: what skip connections carry beside the branches."""

from __future__ import annotations

from vitfeat.cli.arguments import AddCommand


def add(command: AddCommand) -> None:
    """Add the commands."""
