"""The command that puts the tables of all scored analyses together, and draws them."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vitfeat.cli.arguments import (
    AddCommand,
    call_all,
    figure_flag,
    from_json,
    models_json,
    sets_json,
)
from vitfeat.cli.run import BELOW
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the command."""
    text = "put the tables of all scored analyses into one, find the best layers and draw them"
    sub = command("collect", _collect, text)
    sub.add_argument("results", type=Path, help="where {analysis}/{dataset}/{model}.csv are")
    sub.add_argument("--out", type=Path, help="where to write; default: tasks below the results")
    sub.add_argument("--below", type=Path, help=BELOW)
    figure_flag(sub)
    sub.add_argument(
        "--tables", nargs="+", required=True, metavar="ANALYSIS/DATASET", help="which, in order"
    )
    sub.add_argument("--models", required=True, help="[{id, label, family, size}, ...] as JSON")
    text = "{analysis: text} as JSON: what figures say of settings"
    sub.add_argument("--printed", default="{}", help=text)
    text = "models whose features are from elsewhere, which not all analyses are made of"
    sub.add_argument("--imported", nargs="+", default=[], metavar="ID", help=text)
    sub.add_argument("--sets", default="{}", help="{name: [id, ...]} as JSON: choices of models")


def _collect(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from
    from vitfeat.jobs.collect import collect_tables, draw_together

    models = models_from(models_json(options.models))
    ids = [m.id for m in models]
    sets = {"all": ids, **sets_json(options.sets, ids)}
    results = options.results if options.below is None else options.below / options.results
    out = options.out or results / "tasks"
    rows = collect_tables(results, options.tables, models, out, options.imported)
    call_all(
        [
            (
                "",
                partial(
                    draw_together,
                    rows,
                    [m for m in models if m.id in ids],
                    out / "sets" / chosen,
                    from_json(options.printed, "--printed"),
                ),
            )
            for chosen, ids in sets.items()
        ],
        console,
    )
