"""A dataset's tables in words: its index, and what is annotated beside its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vitfeat.data.images import printable
from vitfeat.data.index import COLUMNS, Index
from vitfeat.data.layouts import LAYOUTS
from vitfeat.data.table import read_header, read_notes
from vitfeat.errors import DataError
from vitfeat.tables import read_table


def describe_table(path: Path) -> Iterator[str]:
    """Yield lines that say what an index or a table of annotations holds, and its notes.

    Raises
    ------
    DataError
        The file cannot be read, is damaged, or is neither.
    """
    header = read_header(path)
    companions = {layout.companion for layout in LAYOUTS.values() if layout.companion}
    kinds = {companion.row._fields: companion for companion in companions}
    if header == COLUMNS:
        yield from _index(path)
    elif companion := kinds.get(header):
        rows = read_table(path, companion.row, f"table of {companion.kind}", "vitfeat annotations")
        yield f"annotations  {path}"
        yield f"kind         {companion.kind}"
        yield f"rows         {len(rows):,}"
    else:
        raise DataError(
            f"{printable(str(path))} is neither the index of a dataset nor a table of its "
            f"annotations: its columns are {printable(', '.join(header)[:80])}"
        )
    for note in read_notes(path):
        yield f"note         {note}"


def _index(path: Path) -> Iterator[str]:
    index = Index.read(path)
    yield f"index        {path}"
    yield f"images       {len(index):,}, {index.n_classes or 'no'} classes"
    yield f"             sha256 {index.fingerprint}"
    if index.skipped:
        yield f"skipped      {len(index.skipped)}, first: {printable(index.skipped[0][0])}"
