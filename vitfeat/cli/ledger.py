"""The command about published numbers."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, weights_folder
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the command."""
    text = "list published numbers, or run one and say whether it comes out"
    sub = command("reproduce", _reproduce, text)
    sub.add_argument("name", nargs="?", help="a number of the list (default: list them)")
    sub.add_argument("--data", type=Path, metavar="FOLDER", help="where its dataset is")
    text = "(default: results/reproduced; numbers share what they can)"
    sub.add_argument(
        "--results", type=Path, default=Path("results/reproduced"), help=f"the folder {text}"
    )
    weights_folder(sub)
    sub.add_argument("--cores", default="all", help="of Snakemake (default: all)")
    sub.add_argument("-n", "--dry-run", action="store_true", help="say what would run, no more")
    text = 'further words for Snakemake: --snakemake="--profile workflow/profiles/slurm"'
    sub.add_argument("--snakemake", type=shlex.split, default=[], metavar="WORDS", help=text)


def _reproduce(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.ledger.entries import find_entry, read_ledger

    if options.name is None:
        ledger = read_ledger()
        width = max(map(len, ledger))
        for entry in ledger.values():
            of = entry.protocol
            console.print(
                f"{entry.name:{width}}  {entry.published:6.2f}  within {of.tolerance:.2f}  "
                f"{entry.state:14}  {of.measured}; {of.source}"
            )
        console.print("`vitfeat reproduce NAME` says what one needs, runs it and compares.")
        return
    from vitfeat.ledger.reproduce import described, prepare, run, verdict

    entry = find_entry(options.name)
    for line in described(entry):
        console.print(line)
    for line in prepare(entry, options.data, options.results, options.weights_folder):
        console.print(line)
    how = [
        "--cores",
        options.cores,
        *(["--dry-run"] if options.dry_run else ()),
        *options.snakemake,
    ]
    run(entry, options.results, how)
    if not options.dry_run:
        for line in verdict(entry, options.results):
            console.print(line)
