"""Tables of several models of one dataset, as figures and collected tables read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from vitfeat.errors import AnalysisError
from vitfeat.figures.models import Model


class _OfModel(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def dataset(self) -> str: ...


TableRow = TypeVar("TableRow", bound=_OfModel)


def read_model(
    folder: Path, dataset: str, model: str, suffix: str, read: Callable[[Path], list[TableRow]]
) -> list[TableRow]:
    """Read the table ``{dataset}/{model}{suffix}`` of a folder, which may be empty."""
    path = folder / dataset / f"{model}{suffix}"
    rows = read(path)
    for row in rows:
        if (row.model, row.dataset) != (model, dataset):
            raise AnalysisError(
                f"{path} holds values of {row.model} on {row.dataset}, not of {model} on "
                f"{dataset}: compute it again"
            )
    return rows


def read_models(
    folder: Path,
    dataset: str,
    models: Sequence[Model],
    suffix: str,
    read: Callable[[Path], list[TableRow]],
) -> list[TableRow]:
    """Read the tables of all models, of which some but not all may be empty."""
    found: list[TableRow] = []
    for model in models:
        found += read_model(folder, dataset, model.id, suffix, read)
    if not found:
        raise AnalysisError(
            f"{folder / dataset}: no values to draw, the tables *{suffix} of "
            f"{', '.join(model.id for model in models) or 'no model'} are empty: choose models "
            "that have some"
        )
    return found
