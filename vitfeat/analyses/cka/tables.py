"""CKA as tidy CSV tables: one row a value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.gramfile import GramFile
from vitfeat.tables import read_table, write_table


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


def table(
    values: NDArray[np.float64], a: GramFile, b: GramFile, *, estimator: str
) -> Iterator[Row]:
    """Rows of :func:`vitfeat.analyses.cka.compute.cka` of a and b.

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
    """Write rows of a CKA table; see :func:`vitfeat.tables.write_table`."""
    write_table(path, Row, rows)


def read_csv(path: str | os.PathLike[str]) -> list[Row]:
    """Read rows of a CKA table; see :func:`vitfeat.tables.read_table`."""
    return read_table(path, Row, "CKA table", "vitfeat run cka")
