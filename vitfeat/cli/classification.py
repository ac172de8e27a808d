"""Commands: classes of images by nearest neighbours and by linear probes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, layer, positive
from vitfeat.console import Console


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("knn", _knn, "classify a store's images by their nearest training images")
    _add_stores(sub)
    sub.add_argument(
        "--neighbours",
        nargs="+",
        type=positive,
        default=[10, 20, 100, 200],
        help="numbers of neighbours that vote",
    )
    sub.add_argument(
        "--temperature",
        type=_above_zero,
        default=0.07,
        help="a vote weighs exp(cosine / temperature)",
    )
    sub.add_argument(
        "--max-mb",
        type=positive,
        default=2048,
        help="bound on the test images and their neighbours in memory",
    )

    sub = command("linear-probe", _linear_probe, "fit linear classifiers, try them on a store")
    _add_stores(sub)
    sub.add_argument(
        "--regularisation",
        nargs="+",
        type=_above_zero,
        default=[1e-4, 1e-3, 1e-2, 1e-1],
        help="strengths of the L2 penalty to choose from",
    )
    sub.add_argument(
        "--validation",
        type=_share,
        default=0.2,
        help="share of the training images that the penalty is chosen on",
    )
    sub.add_argument("--seed", type=count, default=0, help="seed of the choice of these images")

    sub = command("join-layers", _join_layers, "put tables of single layers of a task together")
    sub.add_argument("tables", type=Path, nargs="+")
    sub.add_argument("--store", type=Path, required=True, help="the store that they are of")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")


def _add_stores(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("store", type=Path, help="store of the images to classify")
    sub.add_argument("--train", type=Path, required=True, help="store of the training images")
    sub.add_argument(
        "--features",
        nargs="+",
        default=["cls", "mean"],
        choices=["cls", "mean"],
        help="CLS, mean of spatial tokens",
    )
    sub.add_argument("--final-norm", action="store_true", help="apply the model's final norm first")
    sub.add_argument(
        "--layers", nargs="+", type=layer, default=["all"], help="layers, by name or number"
    )
    sub.add_argument(
        "--if-stored", action="store_true", help="pass over numbers of layers that are not stored"
    )
    sub.add_argument("--threads", type=positive, default=1)
    sub.add_argument("--device", default="auto")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")


def _knn(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.knn.job import write_knn

    write_knn(
        options.store,
        options.train,
        options.out,
        features=options.features,
        final_norm=options.final_norm,
        neighbours=options.neighbours,
        temperature=options.temperature,
        layers=options.layers,
        if_stored=options.if_stored,
        max_bytes=options.max_mb * 2**20,
        threads=options.threads,
        device=options.device,
        log=console.log,
    )


def _linear_probe(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.linear_probe.job import write_linear_probe

    write_linear_probe(
        options.store,
        options.train,
        options.out,
        features=options.features,
        final_norm=options.final_norm,
        regularisation=options.regularisation,
        validation=options.validation,
        seed=options.seed,
        layers=options.layers,
        if_stored=options.if_stored,
        threads=options.threads,
        device=options.device,
        log=console.log,
    )


def _join_layers(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.jobs.layer_tables import join_layers

    join_layers(options.tables, options.store, options.out)


def _number(allowed: Callable[[float], bool], which: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} is not {which}")
        return value

    read.__name__ = "number"
    return read


_above_zero = _number(lambda value: 0 < value < float("inf"), "above 0")
_share = _number(lambda value: 0 < value < 1, "between 0 and 1")
