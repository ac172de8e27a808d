"""Commands: attention metrics and maps averaged over images, from the summaries."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, models_json
from vitfeat.cli.figures import add_figures
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command(
        "attention", _attention, "average attention metrics and maps over a store's images"
    )
    sub.add_argument("store", type=Path)
    sub.add_argument(
        "--null-rows",
        choices=["zero", "exclude"],
        default="zero",
        help="queries that attend to no spatial token: rows of zeros, or left out",
    )
    sub.add_argument(
        "--offset-null-rows",
        choices=["zero", "exclude"],
        default="exclude",
        help="the same in offsets, of which such queries have none",
    )
    sub.add_argument("--by-class", action="store_true", help="average maps by class too")
    sub.add_argument(
        "--high-norm",
        choices=["absolute", "median", "mad"],
        help="count high-norm spatial tokens, by this rule",
    )
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")
    sub.add_argument("--maps", type=Path, required=True, help="the maps to write (NetCDF)")

    add_figures(command, "attention", "{dataset}/{model}.csv")

    sub = command("plot-attention-model", _plot_model, "draw one model's attention tables and maps")
    sub.add_argument("folder", type=Path, help="where {model}.csv and {model}.nc of a dataset are")
    sub.add_argument("--model", required=True, help="id of the one to draw")
    sub.add_argument(
        "--models",
        required=True,
        help="[{id, label, family, size}, ...] as JSON: all that share its scales",
    )
    sub.add_argument("--by-class", action="store_true", help="draw the deviation over classes too")
    sub.add_argument("--out", type=Path, required=True, help="folder for the figures")


def _attention(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.attention.job import write_attention

    write_attention(
        options.store,
        options.out,
        options.maps,
        null_rows=options.null_rows,
        offset_null_rows=options.offset_null_rows,
        by_class=options.by_class,
        high_norm_rule=options.high_norm,
        log=console.log,
    )


def _plot_model(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.attention.model_figures_job import write_model_figures

    write_model_figures(
        options.folder,
        options.model,
        models_json(options.models),
        options.out,
        by_class=options.by_class,
    )
