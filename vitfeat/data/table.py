"""The index's CSV files: RFC 4180, UTF-8, written whole or not at all.

What was noticed while a table was made, and may change numbers, stands beside it as
``{stem}.notes.txt``, a line each, and in every store that is made from it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vitfeat.data.images import printable
from vitfeat.errors import DataError
from vitfeat.files import replacing


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; it appears when it is complete."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_table(
    path: Path, header: Sequence[str], *others: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line, and the fields, of each row of such a file.

    It may have one of several headers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
    if not text.endswith("\n"):
        raise damaged(path, text.count("\n") + 1, "the file ends within a line")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for number, fields in enumerate(reader):
            if number == 0:
                if tuple(fields) not in {tuple(header), *map(tuple, others)}:
                    raise damaged(path, 1, f"expected the header {','.join(header)}")
                header = fields
            if len(fields) != len(header):
                raise damaged(
                    path, reader.line_num, f"{len(fields)} fields instead of {len(header)}"
                )
            if number:
                yield reader.line_num, fields
    except csv.Error as error:
        raise damaged(path, reader.line_num, str(error)) from None


def read_header(path: Path) -> tuple[str, ...]:
    """Read the names of a CSV file's columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), None)
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        header = None
    if not header:
        raise DataError(f"{printable(str(path))} is no table: it has no line of columns")
    return tuple(header)


def write_notes(path: Path, notes: Iterable[str]) -> None:
    """Write what was noticed while the table at ``path`` was made."""
    with replacing(_notes_path(path)) as partial:
        partial.write_text("".join(f"{note}\n" for note in notes), "utf-8")


def read_notes(path: Path) -> list[str]:
    """Read what was noticed while the table at ``path`` was made; nothing where it is not said."""
    try:
        return _notes_path(path).read_text("utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        # Notes decide no number: a table is as good without them.
        return []


def _notes_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.notes.txt")


def damaged(path: Path, line: int, problem: str) -> DataError:
    """Make the error for a line that cannot be right."""
    return DataError(f"{printable(str(path))}, line {line}: {problem}; remake the index")
