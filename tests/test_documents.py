"""The pages of the project hold together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from vitfeat.analyses.registry import built_in


def _pages(root: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def _plain(text: str) -> str:
    """Return a page without its blocks of code, whose brackets are no links."""
    return re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """Return what a page's headings are called in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in words}


def _broken(root: Path, page: str) -> list[str]:
    path, broken = root / page, []
    for link in re.findall(r"\]\(([^)\s]+)\)", _plain(path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


def test_every_link_leads_somewhere(root: Path) -> None:
    broken = {page: _broken(root, page) for page in _pages(root)}
    assert {page: links for page, links in broken.items() if links} == {}


@pytest.mark.parametrize("link", ["no.md", "page.md#no", "#no"])
def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path, link: str) -> None:
    (tmp_path / "page.md").write_text(f"# A page, `of` one\n[a](#a-page-of-one) [b]({link})\n")
    assert _broken(tmp_path, "page.md") == [link]


def test_every_analysis_has_its_page_and_stands_in_the_list(root: Path) -> None:
    folder = root / "docs" / "analyses"
    assert {path.stem for path in folder.glob("*.md")} == {"README", *built_in()}
    listed = re.findall(r"^\| `(\w+)` .*\[\1\]\(\1\.md\)", (folder / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(built_in())
