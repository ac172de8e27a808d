"""Commands: all tasks together: one table, and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, models_json
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command(
        "collect-tasks", _collect, "put the tables of all tasks into one, and find best layers"
    )
    sub.add_argument("results", type=Path, help="where {task}/{dataset}/{model}.csv are")
    sub.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK/DATASET", help="which tables, in order"
    )
    sub.add_argument("--models", nargs="+", required=True, metavar="ID")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")
    sub.add_argument("--best", type=Path, required=True, help="the table of best layers (CSV)")

    sub = command("plot-tasks", _draw_all, "draw all tasks together, from their collected table")
    sub.add_argument("table", type=Path, help="what collect-tasks wrote")
    sub.add_argument("--models", required=True, help="[{id, label, family, size}, ...] as JSON")
    sub.add_argument("--out", type=Path, required=True, help="folder for the figures")


def _collect(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.jobs.collect import collect_tasks

    collect_tasks(
        options.results,
        options.tasks,
        options.models,
        options.out,
        options.best,
        log=console.log,
    )


def _draw_all(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from
    from vitfeat.jobs.score_figures import all_tasks_set

    all_tasks_set(options.table, models_from(models_json(options.models)), options.out)
