"""Tables of pairs of models, as jobs write them and figures across models read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple, TypeVar

from vitfeat.errors import AnalysisError

Row = TypeVar("Row")


class PairTable(NamedTuple):
    """The file of a pair of models for one token kind.

    It has no rows where a model lacks the tokens; that of the model with itself then has none.
    """

    tokens: str
    model_a: str
    model_b: str
    path: Path


def pair_tables(
    folder: Path, datasets: Iterable[str], tokens: Sequence[str], models: Iterable[str]
) -> dict[str, list[PairTable]]:
    """Return by dataset the tables of all pairs, ``{folder}/{dataset}/{tokens}/{a}--{b}.csv``.

    Of two models the id that sorts first stands first, so that the order of a config does not
    change file names.
    """
    pairs = pairs_of(models)
    return {
        dataset: [
            PairTable(kind, a, b, folder / dataset / kind / f"{a}--{b}.csv")
            for kind in tokens
            for a, b in pairs
        ]
        for dataset in datasets
    }


def pairs_of(models: Iterable[str], of: str | None = None) -> list[tuple[str, str]]:
    """Return all pairs of models, or of one, each with itself too, in alphabetical order."""
    pairs = combinations_with_replacement(sorted(models), 2)
    return [pair for pair in pairs if of is None or of in pair]


def read_pairs(
    analysis: str,
    what: str,
    folder: Path,
    datasets: Iterable[str],
    tokens: Sequence[str],
    models: Iterable[str],
    read: Callable[[Path], list[Row]],
) -> tuple[dict[str, list[Row]], set[str]]:
    """Read the tables of all pairs of models; of which there are none is said as `what`.

    Returns rows by dataset, and the models without CLS token that nothing stands in for.
    """
    rows: dict[str, list[Row]] = {}
    left_out = set()
    for dataset, tables in pair_tables(folder, datasets, tokens, models).items():
        rows[dataset] = []
        for table in tables:
            held = read(table.path)
            rows[dataset] += held
            if not held and table.tokens == "cls" and table.model_a == table.model_b:
                left_out.add(table.model_a)
    if left_out and not any(rows.values()):
        raise AnalysisError(
            f"no {what} to draw: no CLS token in {', '.join(sorted(left_out))}; ask for other "
            f"tokens in analyses.{analysis}.tokens, or set analyses.cka.without_cls to mean"
        )
    return rows, left_out
