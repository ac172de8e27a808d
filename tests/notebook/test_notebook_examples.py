"""The examples of the functions for notebooks run, in their docstrings and on their page."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import vitfeat
from vitfeat.notebook import extract, scores

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture
def beside_photos(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)


@pytest.mark.usefixtures("beside_photos")
@pytest.mark.parametrize("module", [extract, scores], ids=lambda m: m.__name__)
def test_the_examples_of_the_docstrings_run(module: ModuleType) -> None:
    results = doctest.testmod(module, optionflags=OPTIONS)
    assert results.attempted > 1
    assert results.failed == 0


def test_every_function_has_an_example() -> None:
    for name in set(vitfeat.__all__) - {"Settings", "__version__", "open"}:
        documentation = inspect.getdoc(getattr(vitfeat, name))
        assert documentation is not None
        assert f"vitfeat.{name}(" in documentation, name


@pytest.mark.usefixtures("beside_photos")
def test_the_examples_of_the_page_run(root: Path) -> None:
    page = root / "docs/notebook.md"
    results = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert results.attempted > 10
    assert results.failed == 0
    text = page.read_text("utf-8")
    assert [n for n in vitfeat.__all__ if f"vitfeat.{n}(" not in text] == [
        "Settings",
        "__version__",
    ]
