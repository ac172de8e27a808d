"""What ``snakemake --report`` shows: which outputs, in what order, with methods and settings."""

from __future__ import annotations

import html
import json
import re
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from vitfeat.config.config import Config

COLLECTED = "tasks"
"""The folder of the tables of all scored analyses."""


class Report:
    """Captions of a config's report, and where each output stands in it.

    ``pages`` has a page of documentation for every analysis, ``{name}.md``; one of the user's own
    has none. Captions are files, as Snakemake asks for, which go with this object.
    """

    def __init__(self, config: Config, pages: Path) -> None:
        self.config = config
        self._folder = tempfile.TemporaryDirectory(prefix="vitfeat-report-")
        self._titles = {COLLECTED: "all scores"}
        methods = []
        for name, settings in config.analyses.items():
            page = pages / f"{name}.md"
            text = page.read_text("utf-8") if page.exists() else f"# {name}\n"
            self._titles[name] = text.splitlines()[0].lstrip("# ").replace(":", ",")
            table = _table(settings.model_dump())
            summary = text.split("\n\n")[1] if "\n\n" in text else ""
            self._write(name, f"{_as_html(summary)}<h4>Settings</h4>{table}")
            methods.append(f"{_as_html(text)}<h2>Settings of this run</h2>{table}")
        self._write(COLLECTED, "<p>Every score of every layer, and the best layer of each.</p>")
        # Snakemake centres it, which puts the top of what is higher than a window out of reach.
        style = "max-height: 96vh; overflow: auto; padding: 0 1em"
        text = "".join((_overview(config), *methods))
        self.overview = self._write("overview", f'<div style="{style}">{text}</div>')

    def of(self, path: str) -> dict[str, Any] | None:
        """Return what Snakemake's ``report`` takes for an output; None for one that is not shown.

        Figures and tables are; PDFs show what PNGs do, and tables of single pairs of models are
        too many.
        """
        results = f"{self.config.results.as_posix()}/"
        parts = PurePosixPath(path.removeprefix(results)).parts
        name, suffix = PurePosixPath(path).stem, PurePosixPath(path).suffix
        if not path.startswith(results) or parts[0] not in self._titles or "--" in name:
            return None
        if suffix not in {".png", ".csv", ""}:
            return None
        dataset, *of = parts[1:-1] or ("all datasets",)
        if "sets" in parts:  # A choice of models, of a dataset or of all.
            dataset, of = dataset.replace("sets", "all datasets"), [parts[-2]]
        labels = {"what": name, "of": "all models" if of in ([], ["all"]) else " ".join(of)}
        if suffix == ".csv" and not of and dataset != "all datasets":
            labels = {"what": "table", "of": name}
        if not suffix:
            labels = {"what": "{figure}", "of": name}
        return {
            "caption": str(Path(self._folder.name, f"{parts[0]}.rst")),
            "category": self._titles[parts[0]],
            "subcategory": dataset,
            "labels": {**labels, "as": "numbers" if suffix == ".csv" else "figure"},
            **({} if suffix else {"patterns": ["{figure}.png"]}),
        }

    def _write(self, name: str, body: str) -> str:
        """Write HTML as Snakemake reads captions: a template of reStructuredText."""
        path = Path(self._folder.name, f"{name}.rst")
        raw = textwrap.indent(body, "   ")
        path.write_text(f"{{% raw %}}\n.. raw:: html\n\n{raw}\n\n{{% endraw %}}\n", "utf-8")
        return str(path)


def _overview(config: Config) -> str:
    models = {
        f"{model.label} ({model.id})": f"{model.family}, {model.source} {model.name}"
        for model in config.models
    }
    datasets = {name: f"{spec.layout}, {spec.root}" for name, spec in config.datasets.items()}
    return (
        f"<h1>vitfeat</h1><h2>Models</h2>{_table(models)}<h2>Datasets</h2>{_table(datasets)}"
        f"<h2>Extraction</h2>{_table(config.extraction.model_dump())}"
    )


def _table(rows: Mapping[str, Any]) -> str:
    """Return names and values as a table of HTML."""
    return "".join(
        [
            "<table>",
            *(
                f"<tr><td>{html.escape(key)}</td><td>{html.escape(_shown(value))}</td></tr>"
                for key, value in rows.items()
            ),
            "</table>",
        ]
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _as_html(markdown: str) -> str:
    """Return documentation as HTML, its formulas as MathML, which browsers show by themselves."""
    reader = (
        MarkdownIt()
        .enable("table")
        .use(
            dollarmath_plugin,
            renderer=lambda text, options: convert(
                text, display="block" if options["display_mode"] else "inline"
            ),
        )
    )
    # Other pages are not in a report.
    text = re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\)", r"\1", markdown)
    rendered: str = reader.render(text)
    return rendered
