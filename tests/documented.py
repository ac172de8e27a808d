"""The commands that the documents name: collected, and their placeholders filled in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PROGRAMS = "snakemake|vitfeat|make|python3?|pip|conda|cp|source|git|bash"
_COMMAND = re.compile(rf"\$? ?((?:{_PROGRAMS})\s+\S.*)")
# In a sentence of a comment, behind a colon.
_BEHIND_A_COLON = re.compile(rf":\s+((?:{_PROGRAMS})\s+(?:-|\.\.\.).*)")
_INLINE = re.compile(r"`([^`]+)`")

#: Where commands are documented.
DOCUMENTS = (
    *(
        "README.md",
        "CONTRIBUTING.md",
        "docs/**/*.md",
        "config.yaml",
        "configs/*.yaml",
        "environment.yml",
    ),
    *("profiles/**/*.yaml", "workflow/profiles/**/*.yaml"),
    *("notebooks/*.ipynb", "Makefile"),
)


class Documented(NamedTuple):
    """A command, and where it is documented."""

    where: str
    command: str

    @property
    def words(self) -> list[str]:
        """Return its words, without the comment behind them."""
        return [w for w in shlex.split(self.command, comments=True) if w != "..."]

    def __str__(self) -> str:
        return f"{self.where}: {' '.join(self.words)}"


def documented(root: Path, helps: Iterable[tuple[str, str]] = ()) -> list[Documented]:
    """Return every command once, from the documents below a folder and from texts of help."""
    documents = [
        (path.relative_to(root).as_posix(), path.suffix or path.name, path.read_text("utf-8"))
        for pattern in DOCUMENTS
        for path in sorted(root.glob(pattern))
    ]
    found: dict[tuple[str, ...], Documented] = {}
    for where, kind, text in (*documents, *((name, ".help", text) for name, text in helps)):
        for line, command in commands_of(kind, text):
            new = Documented(f"{where}:{line}", command)
            found.setdefault(tuple(new.words), new)
    return list(found.values())


def commands_of(kind: str, text: str) -> Iterator[tuple[int, str]]:
    """Give the line and the words of every command of a document."""
    if kind == ".md":
        yield from _of_markdown(text)
    elif kind == ".ipynb":
        for cell in json.loads(text)["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                yield from _of_markdown(source)
            else:
                shell = (line[1:] for line in source.splitlines() if line.startswith("!"))
                yield from ((1, line) for line in shell if _COMMAND.fullmatch(line))
    elif kind == ".help":
        yield from _of_lines(text.splitlines())
    elif kind == "Makefile":
        # Its first lines say what there is: make TARGET, and what it does.
        for number, line in enumerate(text.splitlines(), 1):
            if (match := re.match(r"# (make [a-z-]+)", line)) is not None:
                yield number, match.group(1)
    else:
        yield from _of_lines(re.sub(r"^[^#]*", "", line) for line in text.splitlines())


def _of_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Give commands that fill a line, or a comment, or stand behind a colon, or in backticks."""
    for number, line in enumerate(lines, 1):
        words = line.lstrip("# ").strip()
        match = _COMMAND.fullmatch(words) or _BEHIND_A_COLON.search(words)
        if match is not None and "`" not in words:
            yield number, match.group(1)
        for inline in _INLINE.findall(line):
            if _COMMAND.fullmatch(inline):
                yield number, inline


def _of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Give commands of fenced and indented blocks, and inline code, which may span two lines."""
    fenced, prose = False, []
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        block = fenced or line.startswith("    ")
        prose.append("" if block or fence else line)
        if block and (match := _COMMAND.fullmatch(line.strip())) is not None:
            yield number, match.group(1)
    joined = "\n".join(prose)
    for span in _INLINE.finditer(joined):
        inline = " ".join(span.group(1).split())
        if (match := _COMMAND.fullmatch(inline)) is not None:
            yield joined.count("\n", 0, span.start()) + 1, match.group(1)
