"""Tidy CSV tables: one row a value, typed columns, exact numbers.

The columns of a table are the fields of a NamedTuple. Texts, whole numbers, floats, and these or
nothing (an empty cell, ``None``) can be fields.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from vitfeat.errors import AnalysisError
from vitfeat.files import replacing
from vitfeat.text import plural

Row = TypeVar("Row", bound=NamedTuple)


def write_table(
    path: str | os.PathLike[str], kind: type[Row], rows: Iterable[Row], **more: str
) -> None:
    """Write rows under a header, the fields of their kind; the file appears when it is complete.

    Columns of `more` are the same in all rows, and stand last.

    Numbers are written so that they read back as the same float; NaN is ``nan``, None is empty.
    """
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*kind._fields, *more))
        writer.writerows((*row, *more.values()) for row in rows)


def read_table(path: str | os.PathLike[str], kind: type[Row], what: str, how: str) -> list[Row]:
    """Read a file by :func:`write_table`.

    ``what`` such a table is called and ``how`` one is made are for messages.
    """
    casts = [_cast(hint) for hint in get_type_hints(kind).values()]
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != kind._fields:
                raise AnalysisError(
                    f"{path} is no {what}: its first line must be {','.join(kind._fields)}; "
                    f"compute it anew ({how})"
                )
            rows = []
            for line in reader:
                where = f"{path}, line {reader.line_num}, is no row of this {what}"
                if len(line) != len(casts):
                    raise AnalysisError(
                        f"{where}: found {plural(len(line), 'cell')}, not {len(casts)}; compute it "
                        f"anew ({how})"
                    )
                try:
                    values = [cast(cell) for cast, cell in zip(casts, line, strict=True)]
                except ValueError as error:
                    raise AnalysisError(f"{where}: {error}; compute it anew ({how})") from error
                rows.append(kind._make(values))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnalysisError(f"cannot read {what} {path} ({error})") from error


def _cast(hint: Any) -> Callable[[str], Any]:
    kinds = get_args(hint)
    if not kinds:
        cast: Callable[[str], Any] = hint
        return cast
    (inner,) = (kind for kind in kinds if kind is not type(None))
    return lambda cell: inner(cell) if cell else None
