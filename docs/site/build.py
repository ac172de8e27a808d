"""Build the documentation site, as `make docs` does.

    python docs/site/build.py build/docs

The Markdown of the repository is the source, with links that hold on a code host too. It is copied,
with what it links to; what is made from the code is added; Sphinx makes pages of it, and every
warning is an error; then every link of the pages is followed. Nothing here uses a network.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# A script's folder is on the path, and so are this folder's modules when Sphinx imports conf.py.
sys.path.insert(0, str(HERE))

import links  # noqa: E402
import reference  # noqa: E402

import notebooks  # noqa: E402

LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml"}


def navigation() -> list[dict[str, Any]]:
    """Return the headings, and the pages below each."""
    made: list[dict[str, Any]] = yaml.safe_load((HERE / "navigation.yaml").read_text("utf-8"))
    return made


def pages(below: Any) -> Iterator[str]:
    """Yield the pages of a part of the navigation, in its order."""
    if isinstance(below, str):
        yield below
        return
    for part in below:
        if isinstance(part, dict):
            for page, inner in part.items():
                yield page
                yield from pages(inner)
        else:
            yield part


def listed() -> list[str]:
    """Return all pages of the navigation."""
    return [page for part in navigation() for below in part.values() for page in pages(below)]


def place(page: str) -> str:
    """Return where a page of the repository stands in the site."""
    if page == "README.md":
        return "index.md"
    return re.sub(r"\.ipynb$", ".md", page.removeprefix("docs/"))


class Source:
    """The folder that Sphinx reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = set(listed())
        self.shown: set[str] = set()

    def write(self) -> None:
        """Write all of it."""
        for page in sorted(self.pages):
            self._write_page(page)
        for file in sorted(self.shown):
            self._write_file(file)
        for part in navigation():
            for below in part.values():
                self._nest(below)
        front = self.folder / "index.md"
        trees = (_toctree(name, below) for part in navigation() for name, below in part.items())
        front.write_text("\n".join((front.read_text("utf-8"), *trees)), "utf-8")

    def _write_page(self, page: str) -> None:
        out = self.folder / place(page)
        out.parent.mkdir(parents=True, exist_ok=True)
        if page.startswith("reference/"):
            text = reference.PAGES[page]()
        elif page.endswith(".ipynb"):
            text = notebooks.as_markdown(ROOT / page, out)
        else:
            text = (ROOT / page).read_text("utf-8")
        out.write_text(LINK.sub(lambda found: self._moved(page, found), text), "utf-8")

    def _moved(self, page: str, found: re.Match[str]) -> str:
        """Return a link as it must be in the site, and see to it that what it leads to is there."""
        before, path, anchor, behind = found.groups()
        target = Path(os.path.normpath(ROOT / Path(page).parent / path))
        if not target.exists() or not target.is_relative_to(ROOT):
            return found[0]
        name = target.relative_to(ROOT).as_posix()
        if name in self.pages:
            new = place(name)
        elif target.suffix in (".png", ".svg"):
            new = place(name)
            (self.folder / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, self.folder / new)
        elif target.is_file():
            self.shown.add(name)
            new = f"files/{name}.md"
        else:
            raise SystemExit(f"{page}: {path} is a folder, which the site cannot show; link a file")
        return f"{before}{_relative(new, place(page))}{anchor or ''}{behind}"

    def _write_file(self, name: str) -> None:
        """Write a page with a file of the repository that a page links to."""
        out = self.folder / f"files/{name}.md"
        out.parent.mkdir(parents=True, exist_ok=True)
        language = LANGUAGES.get(Path(name).suffix, "text")
        text = (ROOT / name).read_text("utf-8")
        out.write_text(f"---\norphan: true\n---\n# {name}\n\n~~~~{language}\n{text}~~~~\n", "utf-8")

    def _nest(self, below: Any) -> None:
        for part in below:
            if isinstance(part, dict):
                for page, inner in part.items():
                    path = self.folder / place(page)
                    tree = _toctree("", inner, place(page))
                    path.write_text(f"{path.read_text('utf-8')}\n{tree}", "utf-8")
                    self._nest(inner)


def _relative(new: str, page: str) -> str:
    return os.path.relpath(new, Path(page).parent)


def _toctree(caption: str, below: Any, page: str = "index.md") -> str:
    """Return the directive that puts pages into the sidebar."""
    names = [next(iter(part)) if isinstance(part, dict) else part for part in below]
    entries = (place(name).removesuffix(".md") for name in names)
    # A page cannot contain itself; the front page's own name is its link at the top of the sidebar.
    lines = [_relative(entry, page) if entry != "index" else "Overview <self>" for entry in entries]
    head = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join((*head, "", *lines, "```", ""))


def main(out: Path) -> int:
    """Build the site, and say where it is."""
    from sphinx.cmd.build import main as sphinx

    source, cache = out / "source", out / "doctrees"
    shutil.rmtree(out, ignore_errors=True)
    source.mkdir(parents=True)
    Source(source).write()
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(cache)]
    if status := sphinx([*options, str(source), str(out / "html")]):
        return status
    broken = list(links.broken(out / "html"))
    for line in broken:
        print(line, file=sys.stderr)  # noqa: T201
    print(f"The site: {out / 'html' / 'index.html'}")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
