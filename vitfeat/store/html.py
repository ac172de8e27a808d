"""A store as a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from vitfeat.data.views import in_words
from vitfeat.store.paths import Place
from vitfeat.store.stored_array import StoredArray
from vitfeat.text import plural, size

# Names of classes, and numbers of layers, that are shown.
_SHOWN = 8

# No colours of its own: it stands on light and on dark pages.
_STYLE = """
.vitfeat-store {font-size: 13px; line-height: 1.5}
.vitfeat-store table {border-collapse: collapse; margin: 6px 0 0; font-size: inherit}
.vitfeat-store th, .vitfeat-store td {text-align: left; padding: 1px 16px 1px 0; border: 0;
  vertical-align: top; background: none; white-space: nowrap}
.vitfeat-store thead th {border-bottom: 1px solid; opacity: 0.6; font-weight: normal}
.vitfeat-store tbody th {font-weight: normal; opacity: 0.6}
.vitfeat-store td.number {text-align: right}
"""


def describe_html(
    place: Place, arrays: Mapping[str, StoredArray], attributes: Mapping[str, Any]
) -> str:
    """Return a store as HTML: what it is of, and its arrays, described where the mouse rests."""
    title = f"<b>{escape(attributes['model'])}</b> on "
    title += escape(plural(attributes["request"]["data"]["n_images"], "image"))
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _facts(place, attributes)
    )
    columns = "".join(f"<th>{name}</th>" for name in ("array", "dimensions", "type", "on disk"))
    rows = "".join(
        _row(array, attributes["sealed"]["arrays"][name]["bytes"]) for name, array in arrays.items()
    )
    return (
        f'<div class="vitfeat-store"><style>{_STYLE}</style>{title}'
        f"<table><tbody>{facts}</tbody></table>"
        f"<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _facts(place: Place, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    request = attributes["request"]
    yield "store", str(place)
    if attributes["classes"]:
        yield "classes", _some([*attributes["classes"].values()])
    yield "layers", _some([*map(str, request["layers"])])
    yield "view", in_words(request["view"])
    yield "precision", f"{request['precision']}, stored as {request['dtype']}"
    for note in attributes.get("notes", []):
        yield "note", note


def _some(words: list[str]) -> str:
    """List words, the last one always, with their number where some are left out."""
    if len(words) <= _SHOWN:
        return ", ".join(words)
    return f"{', '.join(words[: _SHOWN - 1])}, ... {words[-1]} ({len(words):,})"


def _row(array: StoredArray, n_bytes: int) -> str:
    dims = ", ".join(f"{dim} {n:,}" for dim, n in zip(array.dims, array.shape, strict=True))
    return (
        f'<tr title="{escape(array.description)}"><td>{escape(array.name)}</td>'
        f"<td>{escape(dims)}</td><td>{array.dtype}</td>"
        f'<td class="number">{size(n_bytes)}</td></tr>'
    )
