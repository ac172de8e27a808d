"""Commands that draw figures across models; each analysis adds its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, models_json
from vitfeat.console import Console
from vitfeat.errors import ConfigError


def add_figures(command: AddCommand, analysis: str, tables: str) -> argparse.ArgumentParser:
    """Add the command ``plot-{analysis}``.

    Parameters
    ----------
    command
        Adds a command.
    analysis
        Key of :data:`vitfeat.jobs.set_figures.SETS`.
    tables
        Where the tables are, below the folder.
    """
    text = f"draw the {analysis} tables of several models"
    sub = command(f"plot-{analysis}", _draw, text)
    figure_arguments(sub, tables)
    sub.set_defaults(analysis=analysis)
    return sub


def figure_arguments(sub: argparse.ArgumentParser, tables: str) -> None:
    """Add what figures are drawn from: tables, datasets and models; and where to.

    Parameters
    ----------
    sub
        The command's parser.
    tables
        Where the tables are, below the folder.
    """
    sub.add_argument("folder", type=Path, help=f"where {tables} are")
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--models", required=True, help="[{id, label, family, size}, ...] as JSON")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="folder for the figures of one dataset")
    what.add_argument("--overview", type=Path, help="PNG for the main numbers of all datasets")


def only_dataset(options: argparse.Namespace) -> str:
    """Return the one dataset that ``--out`` is for.

    Raises
    ------
    ConfigError
        There are several.
    """
    if len(options.datasets) > 1:
        raise ConfigError(
            f"--out takes one of --datasets, found {', '.join(options.datasets)}: draw each by "
            "itself, or all in an --overview"
        )
    return str(options.datasets[0])


def _draw(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.figures.models import models_from
    from vitfeat.jobs.set_figures import OVERVIEWS, SETS

    models = models_from(models_json(options.models))
    more = {"cka": options.with_cka} if options.analysis == "residual" else {}
    if options.overview is not None:
        draw = OVERVIEWS[options.analysis]
        draw(options.folder, options.datasets, models, options.overview, **more)
        return
    draw = SETS[options.analysis]
    draw(options.folder, only_dataset(options), models, options.out, **more)
