"""A notebook as a page of Markdown, with the results that are saved in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat


def as_markdown(path: Path, page: Path) -> str:
    """Return the page, and write its pictures beside it."""
    notebook = nbformat.read(path, as_version=4)
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```ipython3\n{cell.source}\n```")
        for output in cell.outputs:
            parts.extend(_shown(output, page, len(parts)))
    return "\n\n".join((*parts, ""))


def _shown(output: Mapping[str, Any], page: Path, number: int) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        picture = page.with_name(f"{page.stem}-{number}.png")
        picture.write_bytes(base64.b64decode(data["image/png"]))
        yield f"![Output]({picture.name})"
    elif "text/html" in data:
        # Without blank lines, which would end it in Markdown.
        yield (
            "<div class='output'>" + re.sub(r"\n\s*\n", "\n", data["text/html"]).strip() + "</div>"
        )
    elif text := output.get("text") or data.get("text/plain"):
        yield f"```text\n{text.rstrip()}\n```"
