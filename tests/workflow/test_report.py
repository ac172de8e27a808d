"""``snakemake --report``: every figure with its caption, methods and settings, in one file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.harness import Workflow
from vitfeat.config.parsing import parse_config
from vitfeat.plan.report import Report


@pytest.fixture(scope="module")
def report(finished: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = finished.run("--report", str(path))
    assert done.returncode == 0, done.stderr
    return path


def _results(report: Path) -> dict[str, dict[str, Any]]:
    """Return what a report's page has of each file."""
    (found,) = re.findall(r"var results = (\{.*\});?$", report.read_text("utf-8"), re.M)
    results: dict[str, dict[str, Any]] = json.loads(found)
    return results


def test_every_figure_and_its_numbers_are_there_with_their_caption(
    finished: Workflow, report: Path
) -> None:
    shown = {Path(path).relative_to(finished.results): r for path, r in _results(report).items()}
    names = ("all", "last_layer")
    assert {*shown} == {Path(f"cka/{name}.{kind}") for name in names for kind in ("png", "csv")}
    figure = shown[Path("cka/all.png")]
    assert figure["labels"] == {"what": "all", "of": "all models", "as": "figure"}
    assert "How alike two layers see a set of images" in figure["caption"]
    assert "<td>tokens</td><td>[&quot;cls&quot;, &quot;all&quot;]</td>" in figure["caption"]


def test_the_first_page_has_models_datasets_and_methods(report: Path) -> None:
    text = report.read_text("utf-8")
    for part in ("DINO (demo-dino)", "Linear CKA", "Settings of this run", "<math "):
        assert json.dumps(part)[1:-1] in text or part in text, part


@pytest.mark.parametrize(
    ("path", "subcategory", "labels"),
    [
        ("cka/all.png", "all datasets", ("all", "all models", "figure")),
        ("cka/sets/small/all.csv", "all datasets", ("all", "small", "numbers")),
        ("clustering/digits/sets/all/best.png", "digits", ("best", "all models", "figure")),
        ("clustering/digits/demo-dino.csv", "digits", ("table", "demo-dino", "numbers")),
        ("attention/digits/{model}/heads.png", "digits", ("heads", "{model}", "figure")),
        ("attention_maps/digits/demo-mae", "digits", ("{figure}", "demo-mae", "figure")),
        ("tasks/best.csv", "all datasets", ("best", "all models", "numbers")),
    ],
)
def test_where_an_output_stands(
    root: Path, path: str, subcategory: str, labels: tuple[str, str, str]
) -> None:
    placed = _report(root).of(f"results/{path}")
    assert placed is not None
    assert (placed["subcategory"], tuple(placed["labels"].values())) == (subcategory, labels)


@pytest.mark.parametrize(
    "path",
    [
        "cka/all.pdf",
        "cka/digits/cls/demo-dino--demo-mae.csv",
        "datasets/digits.csv",
        "logs/cka.log",
    ],
)
def test_what_is_not_shown(root: Path, path: str) -> None:
    assert _report(root).of(f"results/{path}") is None


def _report(root: Path) -> Report:
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    return Report(parse_config(config), root / "docs/analyses")


@pytest.mark.browser
def test_a_browser_shows_every_figure_without_an_error(report: Path) -> None:
    from tests.explorer.browser import Watched, chromium

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(20_000)
        watched = Watched(page, "file:")
        page.goto(report.as_uri())
        # There is but one category, whose files are listed at once.
        page.get_by_text("Results", exact=True).click()
        drawn = "() => [...document.images].find(i => i.naturalWidth > 500)?.src"
        sources = set()
        for name in ("all", "last_layer"):
            page.locator("tr", has=page.get_by_text(name, exact=True)).locator("a").first.click()
            page.wait_for_timeout(500)
            sources.add(page.wait_for_function(drawn).json_value())
        assert len(sources) == 2
        # The beginning of the first page can be seen.
        page.reload()
        page.get_by_text("vitfeat", exact=True).first.wait_for()
        assert page.get_by_text("vitfeat", exact=True).first.bounding_box()["y"] >= 0
        assert watched.errors == []
