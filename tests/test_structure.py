"""Modules import one another in one direction: what a module needs never needs it back."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


def modules_below(package: Path) -> dict[str, Path]:
    """Return the files of a package by the names of their modules."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = path
    return modules


def imports(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield what a file imports anywhere: in functions and for type checkers, too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in modules else str(node.module)


def circle(package: Path) -> list[str]:
    """Return modules of a package each of which imports the next one, and the last the first."""
    modules = modules_below(package)
    # What the package itself gives to notebooks is imported when they ask for it.
    needed = {
        module: {name for name in imports(path, modules) if name in modules and name != module}
        for module, path in modules.items()
        if module != package.name
    }
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_import_one_another_in_one_direction(root: Path) -> None:
    assert circle(root / "vitfeat") == []


@pytest.mark.parametrize(
    "line",
    ["import p.a", "from p import a", "from p.a import x", "def f():\n    from p.a import x"],
)
def test_a_circle_is_seen_however_it_is_imported(tmp_path: Path, line: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/__init__.py").touch()
    (tmp_path / "p/a.py").write_text("from p import b\n")
    (tmp_path / "p/b.py").write_text("import p.c\n")
    (tmp_path / "p/c.py").write_text(line)
    assert set(circle(tmp_path / "p")) == {"p.a", "p.b", "p.c"}
    (tmp_path / "p/c.py").write_text("import json\n")
    assert circle(tmp_path / "p") == []
