"""Commands: all tasks together: one table, and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.analyses.registry import scored
from vitfeat.cli.arguments import AddCommand, models_json
from vitfeat.cli.figures import figure_arguments, only_dataset
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

    sub = command("plot-task", _draw, "draw the tables of a task of several models")
    sub.add_argument("task", choices=scored())
    figure_arguments(sub, "{dataset}/{model}.csv")
    sub.add_argument(
        "--figures",
        nargs="+",
        metavar="NAME",
        help="of those of a dataset: by_layer, families, best, and as the task has them details "
        "and groups; default: all",
    )

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


def _draw(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from
    from vitfeat.jobs.score_figures import task_overview, task_set

    models = models_from(models_json(options.models))
    if options.overview is not None:
        task_overview(options.task, options.folder, options.datasets, models, options.overview)
        return
    dataset = only_dataset(options)
    task_set(options.task, options.folder, dataset, models, options.out, options.figures)


def _draw_all(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from
    from vitfeat.jobs.score_figures import all_tasks_set

    all_tasks_set(options.table, models_from(models_json(options.models)), options.out)
