"""Commands about a config: its keys, and what it takes of the disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    command("settings", _settings, "print every key of a config, as docs/settings.md has it")
    sub = command("du", _du, "say what takes how much of the disk, or will")
    sub.add_argument(
        "results", nargs="?", type=Path, default=Path("results"), help="the folder of results"
    )
    sub.add_argument(
        "--plan", type=Path, metavar="CONFIG", help="what a config takes, in its place"
    )
    sub.add_argument("--all", action="store_true", help="a line for every dataset, model and array")


def _settings(_: argparse.Namespace, console: Console) -> None:
    from vitfeat.config.page import settings_page

    console.print(settings_page().rstrip("\n"))


def _du(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.disk import on_disk, tabulate

    items, heading = [], f"in {options.results}"
    if options.plan is None:
        items = on_disk(options.results)
    else:
        from vitfeat.config.parsing import read_config
        from vitfeat.plan.disk import compressed, free_bytes, known_sizes, planned
        from vitfeat.text import size

        config = read_config(options.plan)
        sizes = known_sizes(config)
        for name in (n for n in config.datasets if config.reads(n) and n not in sizes):
            console.print(f"dataset {name}: not there to be counted, and left out")
        items = planned(config, sizes)
        heading = (
            f"at most, about {size(compressed(config, items))} compressed; "
            f"{size(free_bytes(config.results))} free"
        )
    for line in tabulate(items, heading, everything=options.all):
        console.print(line)
