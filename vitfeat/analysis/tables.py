"""CKA as tidy CSV tables: one row a value."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analysis.gramfile import GramFile
from vitfeat.errors import AnalysisError
from vitfeat.files import replacing


class Row(NamedTuple):
    """One value; the fields are the columns of the file, in this order.

    ``tokens`` is the token kind that was asked for, ``made_from_a`` and ``made_from_b`` the kinds
    that the two sides really are: another one where a model lacks the tokens.
    """

    model_a: str
    layer_a: int
    model_b: str
    layer_b: int
    estimator: str
    tokens: str
    made_from_a: str
    made_from_b: str
    n_images: int
    cka: float


class PairTable(NamedTuple):
    """The file of a pair of models for one token kind.

    It has no rows where a model lacks the tokens; that of the model with itself then has none.
    """

    tokens: str
    model_a: str
    model_b: str
    path: Path


def table(
    values: NDArray[np.float64], a: GramFile, b: GramFile, *, estimator: str
) -> Iterator[Row]:
    """Rows of :func:`vitfeat.analysis.cka.cka` of a and b.

    Parameters
    ----------
    values
        Its result, (layer_a, layer_b).
    a, b
        The files that it came from.
    estimator
        The name it was called with.
    """
    for row, layer_a in zip(values, a.layers, strict=True):
        for value, layer_b in zip(row, b.layers, strict=True):
            yield Row(
                a.meta.model,
                layer_a,
                b.meta.model,
                layer_b,
                estimator,
                a.meta.tokens,
                a.meta.made_from,
                b.meta.made_from,
                a.n_images,
                float(value),
            )


def write_csv(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write rows under a header; the file appears when it is complete.

    Numbers are written so that they read back as the same float; NaN is ``nan``.

    Parameters
    ----------
    path
        The file; its folder is made when absent.
    rows
        The rows.
    """
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def read_csv(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a file by :func:`write_csv`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    AnalysisError
        The file is absent, has other columns, or a line that cannot be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != Row._fields:
                raise AnalysisError(
                    f"{path} is no CKA table: its first line must be {','.join(Row._fields)}; "
                    "compute it anew (vitfeat cka)"
                )
            return [_row(path, reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise AnalysisError(f"cannot read CKA table {path} ({error})") from error


def _row(path: str | os.PathLike[str], number: int, line: list[str]) -> Row:
    try:
        model_a, layer_a, model_b, layer_b, estimator, tokens, from_a, from_b, n_images, cka = line
        return Row(
            model_a,
            int(layer_a),
            model_b,
            int(layer_b),
            estimator,
            tokens,
            from_a,
            from_b,
            int(n_images),
            float(cka),
        )
    except ValueError as error:
        raise AnalysisError(f"{path}, line {number}, is no row of a CKA table: {error}") from error
