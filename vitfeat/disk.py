"""What stands in a folder of results, and how bytes of it are tabulated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vitfeat.errors import VitfeatError
from vitfeat.store.layout import TAPS
from vitfeat.text import plural, size

FEATURES = "features"
TRANSIENT = "features that go after use"
GRAMS = "Gram matrices"
CHOSEN = "attention of chosen images"
_UNFINISHED = "unfinished stores"
_LEFTOVERS = "leftovers"

_FOLDERS = {
    "datasets": "indexes and annotations",
    "demo": "embedded datasets",
    "weights": "weights",
    "logs": "logs and timings",
    "benchmarks": "logs and timings",
}
_NO_DATASETS = frozenset({"sets", "gram"})
_FIGURES = frozenset({".png", ".pdf", ".svg", ".npy"})

# Lines of each small table.
_SHOWN = 12


class Item(NamedTuple):
    """Bytes of one kind, of one dataset, model and array where they are of one."""

    kind: str
    dataset: str
    model: str
    array: str
    n_bytes: int
    n_files: int = 0


def on_disk(results: Path) -> list[Item]:
    """Return what stands in a folder of results."""
    if not results.is_dir():
        raise VitfeatError(f"{results}: no such folder; nothing was written yet, or give another")
    sums: dict[tuple[str, str, str, str], Item] = {}
    for parts, n_bytes in files_below(results):
        what = _what(parts)
        before = sums.get(what, Item(*what, 0))
        sums[what] = Item(*what, before.n_bytes + n_bytes, before.n_files + 1)
    return list(sums.values())


def files_below(
    folder: str | Path, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the parts of each file's path, and its bytes; links are not followed.

    What goes meanwhile is left out.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                parts = (*above, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield from files_below(entry.path, parts)
                    continue
                try:
                    n_bytes = entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue
                yield parts, n_bytes
    except FileNotFoundError:
        pass


def _what(parts: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Return the kind of a file, its dataset, model and array; of no dataset or model is ''."""
    name = parts[-1]
    if name.endswith(".partial") and name.startswith("."):
        return _LEFTOVERS, "", "", ""
    if parts[0] == "features" and len(parts) > 2:
        return _of_store(FEATURES, parts[1], parts[2:])
    if parts[:2] == ("attention_maps", "stores") and len(parts) > 3:
        return _of_store(CHOSEN, parts[2], parts[3:])
    if parts[:2] == ("cka", "gram") and len(parts) == 5:
        return GRAMS, parts[2], name.removesuffix(".safetensors"), parts[3]
    if parts[0] in _FOLDERS and len(parts) > 1:
        return _FOLDERS[parts[0]], "", "", ""
    kind = "figures" if Path(name).suffix in _FIGURES else "tables"
    return kind, parts[1] if len(parts) > 2 and parts[1] not in _NO_DATASETS else "", "", ""


def _of_store(kind: str, dataset: str, parts: tuple[str, ...]) -> tuple[str, str, str, str]:
    name, *inside = parts
    for end, other in (
        (".zarr.partial", _UNFINISHED),
        (".zarr.creating", _LEFTOVERS),
        (".zarr.replaced", _LEFTOVERS),
    ):
        if name.endswith(end):
            return other, dataset, name.removesuffix(end).removeprefix("."), ""
    array = next((tap for tap in inside[:1] if tap in TAPS), "coordinates, metadata")
    kind = TRANSIENT if name.endswith(".transient") else kind
    # Of a lock's name, `.model.zarr.lock`, the model is in the middle.
    return kind, dataset, Path(name.removesuffix(".lock")).stem.removeprefix("."), array


def tabulate(items: Sequence[Item], heading: str, *, everything: bool = False) -> Iterator[str]:
    """Yield small tables by kind, dataset, model and array, the largest first.

    With `everything`, a line an item stands below.
    """
    files = sum(item.n_files for item in items)
    counted = f" in {plural(files, 'file')}" if files else ""
    yield f"{size(sum(item.n_bytes for item in items))}{counted} {heading}"
    for field in ("kind", "dataset", "model", "array"):
        n_bytes, n_files = Counter[str](), Counter[str]()
        for item in items:
            name = getattr(item, field)
            n_bytes[name] += item.n_bytes
            n_files[name] += item.n_files
        ranked = sorted(filter(None, n_bytes), key=lambda name: (-n_bytes[name], name))
        if ranked:
            yield from ("", f"by {field}")
            yield from (_line(n_bytes[name], n_files[name], name) for name in ranked[:_SHOWN])
        if rest := ranked[_SHOWN:]:
            in_all = [sum(counts[name] for name in rest) for counts in (n_bytes, n_files)]
            yield _line(in_all[0], in_all[1], f"{len(rest)} more")
    if everything:
        yield ""
        for item in sorted(items, key=lambda item: (-item.n_bytes, item[:4])):
            yield _line(item.n_bytes, item.n_files, ", ".join(filter(None, item[:4])))


def _line(n_bytes: int, n_files: int, what: str) -> str:
    files = f"{plural(n_files, 'file'):>16}" if n_files else ""
    return f"{size(n_bytes):>12}{files}  {what}"
