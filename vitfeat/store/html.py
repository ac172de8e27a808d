"""A store as a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from vitfeat.data.views import in_words
from vitfeat.text import plural, size

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore

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


def describe_html(store: FeatureStore) -> str:
    """Return a store as HTML: what it is of, and its arrays, described where the mouse rests."""
    facts = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _facts(store))
    columns = "".join(f"<th>{name}</th>" for name in ("array", "dimensions", "type", "on disk"))
    arrays = "".join(_row(store, name) for name in store)
    return (
        f'<div class="vitfeat-store"><style>{_STYLE}</style>'
        f"<b>{escape(store.model)}</b> on {escape(plural(store.n_images, 'image'))}"
        f"<table><tbody>{facts}</tbody></table>"
        f"<table><thead><tr>{columns}</tr></thead><tbody>{arrays}</tbody></table></div>"
    )


def _facts(store: FeatureStore) -> Iterator[tuple[str, str]]:
    request = store.attributes["request"]
    yield "store", str(store.path)
    if store.classes:
        yield "classes", _some(list(store.classes.values()))
    yield "layers", _some([str(layer) for layer in store.layers])
    yield "view", in_words(request["view"])
    yield "precision", f"{request['precision']}, stored as {request['dtype']}"
    for note in store.attributes.get("notes", []):
        yield "note", note


def _some(words: list[str]) -> str:
    """List words, the last one always, with their number where some are left out."""
    if len(words) <= _SHOWN:
        return ", ".join(words)
    return f"{', '.join(words[: _SHOWN - 1])}, ... {words[-1]} ({len(words):,})"


def _row(store: FeatureStore, name: str) -> str:
    array = store[name]
    dims = ", ".join(f"{dim} {n:,}" for dim, n in zip(array.dims, array.shape, strict=True))
    n_bytes = size(store.attributes["sealed"]["arrays"][name]["bytes"])
    return (
        f'<tr title="{escape(array.description)}"><td>{escape(name)}</td><td>{escape(dims)}</td>'
        f'<td>{array.dtype}</td><td class="number">{n_bytes}</td></tr>'
    )
