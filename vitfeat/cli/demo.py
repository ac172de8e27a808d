"""Commands about the embedded dataset and models."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands about the embedded dataset and models."""
    sub = command("demo-digits", _demo_digits, "write the embedded dataset as image files")
    sub.add_argument("--out", type=Path, required=True)

    sub = command("train-demo", _train_demo, "train one of the embedded models anew")
    sub.add_argument("name")
    sub.add_argument("--out", type=Path, default=Path("results/demo/weights"))
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int)


def _demo_digits(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.demo import digits

    digits.write(options.out)


def _train_demo(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.demo.train import train

    train(options.name, options.out, seed=options.seed, threads=options.threads)
