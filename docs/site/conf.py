"""Settings of Sphinx, and what the site needs beyond it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import vitfeat  # noqa: E402

project = "vitfeat"
version = release = vitfeat.__version__
author = "The vitfeat team"
copyright = author
html_title = f"vitfeat {version}"
html_theme = "furo"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False
html_math_renderer = "mathml"
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_use_index = html_domain_indices = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Blocks of Markdown without a language: `_language` says what they are.
highlight_language = "default"
pygments_style = "friendly"
pygments_dark_style = "monokai"

_COMMANDS = (
    "snakemake|vitfeat|make|python3?|pip|conda|cp|cd|source|ssh|generate-slurm-partition-config"
)


def _language(text: str) -> str:
    """Return what an indented block is in, as its first lines show."""
    if text.lstrip().startswith(">>> "):
        return "pycon"
    if re.search(rf"^\$? ?(?:{_COMMANDS})\s", text, re.MULTILINE):
        return "console" if text.lstrip().startswith("$") else "bash"
    if re.match(r"(?:import|from) \w|\w+ = |\w+\.\w+\(", text):
        return "javascript" if "import *" in text else "python"
    if re.match(r"\s*[\w-]+:(?:\s|$)", text):
        return "yaml"
    return "text"


def _name_languages(app: Sphinx, tree: nodes.document) -> None:
    """Say what blocks without a language are in; what commands print becomes a block of its own."""
    for block in list(tree.findall(nodes.literal_block)):
        if block.get("language", "none") not in ("none", "default"):
            continue
        text = block.astext()
        parts = text.split("\n\n") if _language(text) == "bash" else [text]
        if all(_language(part) == "bash" for part in parts):
            parts = [text]
        made = (
            nodes.literal_block(part, part, language=_language(part), force=True) for part in parts
        )
        block.replace_self(list(made))


def _link_pictures(app: Sphinx, tree: nodes.document) -> None:
    """Make pictures lead to themselves in full: a scale is what Sphinx does it for."""
    for picture in tree.findall(nodes.image):
        picture.setdefault("scale", 100)


def _math(self: Any, node: nodes.Element, display: str) -> None:
    """Write a formula as MathML, which browsers draw by themselves."""
    made = convert(node.astext(), display=display)
    if "\\" in made:
        getLogger(__name__).warning(
            "formula with an unknown command: %s", node.astext(), location=node
        )
    tag = "div" if display == "block" else "span"
    self.body.append(f'<{tag} class="math">{made}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("doctree-read", _name_languages)
    app.connect("doctree-read", _link_pictures)
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: _math(self, node, "inline"), None),
        (lambda self, node: _math(self, node, "block"), None),
    )
