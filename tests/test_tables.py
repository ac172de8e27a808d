"""Typed CSV tables: what is written is read back, and what is no table is said in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pytest

from vitfeat.errors import AnalysisError
from vitfeat.tables import read_table, write_table


class Line(NamedTuple):
    name: str
    layer: int
    head: int | None
    value: float
    low: float | None


LINES = [
    Line('a, "quoted" ï', 0, None, 0.1 + 0.2, None),
    Line("", -1, 3, math.nan, 5e-324),
    Line("two\nlines", 12, 0, -math.inf, 0.0),
]


def read(path: Path) -> list[Line]:
    return read_table(path, Line, "table of lines", "make lines")


def test_values_come_back_exactly(tmp_path: Path) -> None:
    write_table(tmp_path / "deep" / "t.csv", Line, LINES)
    found = read(tmp_path / "deep" / "t.csv")
    assert math.isnan(found[1].value)
    assert [line._replace(value=0) for line in found] == [line._replace(value=0) for line in LINES]
    assert (found[0].value, found[2].value) == (0.1 + 0.2, -math.inf)


def test_the_header_is_the_fields(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", Line, [])
    assert (tmp_path / "t.csv").read_bytes() == b"name,layer,head,value,low\n"
    assert read(tmp_path / "t.csv") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no table of lines", "name,layer,head,value,low", "make lines"]),
        ("name,layer\na,1\n", ["no table of lines", "make lines"]),
        ("name,layer,head,value,low\na,1,2,x,\n", ["line 2", "'x'"]),
        ("name,layer,head,value,low\na,1,2,0.5,\nb,1.5,,0,\n", ["line 3", "'1.5'"]),
        ("name,layer,head,value,low\na,1,2\n", ["line 2", "found 3 cells, not 5", "make lines"]),
        ("name,layer,head,value,low\na,,2,0.5,\n", ["line 2"]),
    ],
)
def test_what_is_no_table_is_told_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(AnalysisError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in [str(path), *words])


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe\x00", b"name,layer,head,value,low\n" + b"a" * 2**18]
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(AnalysisError, match="cannot read table of lines"):
        read(tmp_path / "t.csv")


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(path, Line, LINES)
    before = path.read_bytes()

    def broken():  # type: ignore[no-untyped-def]
        yield LINES[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_table(path, Line, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
