"""Commands: what skip connections carry beside the branches."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, positive
from vitfeat.cli.figures import add_figures
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command(
        "residual", _residual, "compare the skip inputs of a store's blocks with their branches"
    )
    sub.add_argument("store", type=Path)
    sub.add_argument("--norms", type=Path, required=True, help="table of ratios of norms to write")
    sub.add_argument(
        "--tokens",
        nargs="*",
        choices=["cls", "spatial", "all"],
        default=[],
        help="token kinds of the CKA; none gives the ratios alone",
    )
    sub.add_argument("--cka", type=Path, help="table of CKA to write")
    sub.add_argument("--device", default="auto")
    sub.add_argument(
        "--max-mb", type=positive, default=2048, help="bound on the features in memory"
    )

    sub = add_figures(command, "residual", "{dataset}/{model}.norms.csv and .cka.csv")
    sub.add_argument("--with-cka", action="store_true", help="draw the CKA tables too")


def _residual(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.residual.job import write_residual

    write_residual(
        options.store,
        options.norms,
        tokens=options.tokens,
        cka_out=options.cka,
        max_bytes=options.max_mb * 2**20,
        device=options.device,
        log=console.log,
    )
