"""Commands about CKA: Gram matrices, pairs, figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count, models_json, positive
from vitfeat.console import Console
from vitfeat.errors import ConfigError
from vitfeat.store.layout import TOKEN_ARRAYS


def add(command: AddCommand) -> None:
    """Add the commands about CKA."""
    sub = command("gram", _gram, "compute the Gram matrix of every layer of a store")
    sub.add_argument("store", type=Path)
    sub.add_argument("--tokens", required=True, choices=list(TOKEN_ARRAYS))
    sub.add_argument(
        "--without-cls",
        choices=["leave_out", "mean"],
        default="leave_out",
        help="what stands in for the CLS token of a model that has none",
    )
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--add", type=Path, nargs="*", default=[], help="Gram files of part of them")
    sub.add_argument("--device", default="auto")
    sub.add_argument(
        "--max-mb", type=positive, default=2048, help="bound on the features in memory"
    )

    sub = command("cka", _cka, "compute the CKA of two models from their Gram matrices")
    sub.add_argument("gram_a", type=Path)
    sub.add_argument("gram_b", type=Path)
    sub.add_argument("--estimators", nargs="+", default=["debiased"])
    sub.add_argument("--batch-size", type=positive, default=256)
    sub.add_argument(
        "--batch-order",
        choices=["shuffled", "stored"],
        default="shuffled",
        help="images of a batch: drawn at random, or as they follow one another in the store",
    )
    sub.add_argument("--seed", type=count, default=0)
    sub.add_argument("--out", type=Path, required=True)

    sub = command("plot-cka", _plot_cka, "draw the CKA of all pairs, and of the last layers")
    sub.add_argument("folder", type=Path, help="where {dataset}/{tokens}/{a}--{b}.csv are")
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--tokens", nargs="+", required=True)
    sub.add_argument("--estimator", help="of those in the tables, the one to draw")
    sub.add_argument("--models", required=True, help="[{id, label, family}, ...] as JSON")
    sub.add_argument("--all", type=Path, required=True, dest="out_all")
    sub.add_argument("--last-layer", type=Path, required=True)

    sub = command("plot-cka-pair", _plot_cka_pair, "draw the CKA of one pair of models in large")
    sub.add_argument("table", type=Path, help="{a}--{b}.csv")
    sub.add_argument("--dataset", required=True)
    sub.add_argument("--models", required=True, help="[{id, label, family}, ...] as JSON: a and b")
    sub.add_argument("--estimator", help="of those in the table, the one to draw")
    sub.add_argument("--out", type=Path, required=True, help="the PNG to write")


def _gram(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.cka.gram_job import write_grams

    write_grams(
        options.store,
        options.tokens,
        options.out,
        without_cls=options.without_cls,
        parts=options.add,
        max_bytes=options.max_mb * 2**20,
        device=options.device,
        log=console.log,
    )


def _cka(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.cka.compute import cka
    from vitfeat.analyses.cka.tables import Row, table, write_csv
    from vitfeat.numerics.gramfile import GramFile

    a = GramFile(options.gram_a)
    b = a if options.gram_a == options.gram_b else GramFile(options.gram_b)
    rows: list[Row] = []
    for estimator in options.estimators:
        values = cka(
            a,
            b,
            estimator=estimator,
            batch_size=options.batch_size,
            batch_order=options.batch_order,
            seed=options.seed,
            log=console.log,
        )
        rows += table(values, a, b, estimator=estimator)
    write_csv(options.out, rows)


def _plot_cka(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.cka.figures_job import draw_cka
    from vitfeat.figures.models import models_from
    from vitfeat.plan.needs import cka_tables

    models = models_from(models_json(options.models))
    ids = [model.id for model in models]
    tables = cka_tables(options.folder, options.datasets, options.tokens, ids)
    draw_cka(tables, models, options.out_all, options.last_layer, estimator=options.estimator)


def _plot_cka_pair(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analyses.cka.figures_job import draw_cka_pair
    from vitfeat.figures.models import models_from

    models = models_from(models_json(options.models))
    if not 1 <= len(models) <= 2:
        raise ConfigError(f"--models takes the two models of the pair, found {len(models)}")
    draw_cka_pair(
        options.table,
        options.dataset,
        models[0],
        models[-1],
        options.out,
        estimator=options.estimator,
    )
