"""The documentation site: `make docs` builds it, with every warning and broken link an error."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def site(root: Path) -> ModuleType:
    """The script that builds the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "docs/site"))
        import build

        return build


def test_every_page_is_in_the_navigation_once(root: Path, site: ModuleType) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "docs/**.md", "notebooks/*.ipynb"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    counted = Counter(site.listed())
    assert [page for page, times in counted.items() if times > 1] == []
    assert sorted(set(listed) - set(counted)) == []
    made = set(site.reference.PAGES)
    assert [page for page in counted if page not in made and not (root / page).is_file()] == []


def test_links_that_lead_nowhere_and_things_from_other_hosts_are_seen(
    tmp_path: Path, site: ModuleType
) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="one"></h1><a href="#one"></a><a href="b.html#two"></a><a href="https://x.org">'
        '<a href="#no"></a><a href="b.html#no"></a><a href="c.html"></a><img src="d.png">'
        '<script src="https://cdn.org/x.js"></script><link rel="stylesheet" href="//cdn.org/x.css">'
    )
    (tmp_path / "b.html").write_text('<h2 id="two"></h2>')
    assert sorted(site.links.broken(tmp_path)) == [
        "a.html: #no leads to no heading",
        "a.html: //cdn.org/x.css loads from another host",
        "a.html: b.html#no leads to no heading",
        "a.html: c.html leads to no file",
        "a.html: d.png leads to no file",
        "a.html: https://cdn.org/x.js loads from another host",
    ]


def test_every_command_is_in_the_reference(site: ModuleType) -> None:
    page = site.reference.commands()
    assert "\n## `vitfeat extract`\n" in page
    assert "\n### `vitfeat run cka`\n" in page
    # Flags with what they are for and their default, whatever of it would be markup.
    assert "| `--estimators ESTIMATORS [ESTIMATORS ...]` | Estimators; figures show" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [("# A\n\n$\\foo$\n", "unknown command"), ("# A\n\n[b](#no)\n", "xref_missing")],
)
def test_a_warning_ends_the_build(root: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "index.md").write_text(text)
    options = ["-q", "-W", "-b", "html", "-c", str(root / "docs/site")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(tmp_path), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
