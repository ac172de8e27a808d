"""Commands about a config: written for a study, its keys, what it takes, whether it can run."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand
from vitfeat.console import Console
from vitfeat.errors import ConfigError
from vitfeat.text import plural


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("init", _init, "start a folder of your own: Snakefile, config, profiles")
    sub.add_argument("folder", type=Path, help="nothing in it is overwritten")
    sub.add_argument("--models", nargs="+", default=[], metavar="MODEL", help="ids to start with")
    sub.add_argument("--from-folder", type=Path, metavar="PHOTOS", help="your own images")
    sub = command("doctor", _doctor, "say what this machine lacks for a config, and how to get it")
    text = "(default: config.yaml, where there is one)"
    sub.add_argument("--configfile", type=Path, help=f"the config {text}")
    text = "check a config before Snakemake reads it, which can run code that stands in one"
    sub = command("check", _check, text)
    sub.add_argument("config", type=Path)
    command("settings", _settings, "print every key of a config, as docs/settings.md has it")
    sub = command("du", _du, "say what takes how much of the disk, or will")
    sub.add_argument(
        "results", nargs="?", type=Path, default=Path("results"), help="the folder of results"
    )
    sub.add_argument(
        "--plan", type=Path, metavar="CONFIG", help="what a config takes, in its place"
    )
    sub.add_argument("--all", action="store_true", help="a line for every dataset, model and array")


def _init(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.new_study import write_study

    for line in write_study(options.folder, options.models, options.from_folder):
        console.print(line)


def _doctor(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.config.parsing import read_config
    from vitfeat.doctor import look_at_config, look_at_machine

    stops = 0
    for finding in look_at_machine():
        console.print(finding.line)
        stops += finding.stops
    path = options.configfile or Path("config.yaml")
    if options.configfile or path.exists():
        for finding in look_at_config(read_config(path)):
            console.print(finding.line)
            stops += finding.stops
    if stops:
        raise ConfigError(f"{plural(stops, 'thing')} to mend first, of those above")


def _check(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.config.parsing import read_config

    config = read_config(options.config)
    for line in config.remarks:
        console.print(line)
    console.print(
        f"{options.config}: nothing wrong with it; {plural(len(config.models), 'model')}, "
        f"{plural(len(config.datasets), 'dataset')}, analyses: "
        f"{', '.join(config.analyses) or 'none'}"
    )


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
