"""What a path of the explorer holds; nothing else can be asked for.

``catalog.json``
    Models, datasets, stores.
``datasets/{dataset}.json``
    Ids, labels and classes of its images.
``details/{kind}/{dataset}/{model}.json``
    Which images the rows of a store are; some known numbers.
``features/...``, ``attention_maps/stores/...``
    Files of stores, in parts.
``thumbnails/{dataset}/{place}.webp``, ``views/{kind}/{dataset}/{model}/{row}.webp``
    An image, small; and as a model saw it.
``cka/{dataset}/{tokens}.json``
    CKA of all pairs of models, layer by layer.
``scores.json``
    Scores by layer, of all analyses.
``heads/{dataset}/{model}.json``
    Attention metrics of every layer and head.
``components/{kind}/{dataset}/{model}/{layer}.json``
    Principal components of a layer's spatial tokens.
``points/{kind}/{dataset}/{model}/{features}-{method}/{layer}.json``
    Images as points on two axes.
``vectors/{kind}/{dataset}/{model}/{features}/{layer}.f32``
    Features of every image, of norm 1.
``metrics/{kind}/{dataset}/{model}/{metric}/{layer}.f32``
    A number an image, or one for each head.
"""

from __future__ import annotations

import io
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

from vitfeat.errors import VitfeatError
from vitfeat.explorer import derived, tables
from vitfeat.explorer.catalog import NAME, Listed, Results
from vitfeat.explorer.pictures import thumbnail, view
from vitfeat.store.reader import FeatureStore

PAGE = files("vitfeat.explorer").joinpath("page")
PAGE_FILES = ("index.html", "app.js", "app.css")

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}

# Files of a store: metadata, and shards under a name of numbers.
_STORE_FILE = re.compile(r"(?:[A-Za-z0-9_]+/)*(?:zarr\.json|c(?:[./][0-9]+)*)")

_KEPT_BYTES = 128 * 2**20


class AbsentError(VitfeatError):
    """Nothing is held under a path, or it is not to be had; the message says why."""


@dataclass(frozen=True)
class Held:
    """What a path holds: bytes, or a file that is read in parts."""

    type: str
    content: bytes | None = None
    file: Path | None = None

    @property
    def size(self) -> int:
        """Number of bytes."""
        if self.content is not None:
            return len(self.content)
        assert self.file is not None
        return self.file.stat().st_size

    def part(self, start: int, stop: int) -> bytes:
        """Return some of the bytes."""
        if self.content is not None:
            return self.content[start:stop]
        assert self.file is not None
        with self.file.open("rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)


class Content:
    """Everything that the page of a folder of results can ask for."""

    def __init__(self, results: Results) -> None:
        self.results = results
        # Beside what is served to everybody: what only this page is told.
        self.told: dict[str, Any] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._lock = Lock()
        # One thread computes: a page may ask for the same again before it is there.
        self._computing = Lock()

    def warm(self) -> None:
        """Make what every page asks for first, while the browser starts."""
        first = self.results.datasets[0]
        details = [
            f"details/{'/'.join(key)}.json" for key in self.results.stores if key[1] == first
        ]
        for path in (
            "catalog.json",
            f"datasets/{first}.json",
            f"thumbnails/{first}/0.webp",
            *details,
        ):
            with suppress(VitfeatError, OSError):
                self.read(path)

    def read(self, path: str) -> Held:
        """Return what a path holds.

        Raises
        ------
        AbsentError
            Nothing, or it cannot be read.
        """
        if path in ("", *PAGE_FILES):
            return Held(
                TYPES[Path(path or "index.html").suffix],
                PAGE.joinpath(path or "index.html").read_bytes(),
            )
        if (file := self._store_file(path)) is not None:
            return Held("application/json" if file.suffix == ".json" else _BINARY, file=file)
        made = self._made(path)
        return Held(TYPES.get(Path(path).suffix, _BINARY), self._cached(path, made))

    def _store_file(self, path: str) -> Path | None:
        """Find a file of a store of the results that is not linked out of them."""
        for listed in self.results.stores.values():
            if not path.startswith(f"{listed.path}/"):
                continue
            below = path[len(listed.path) + 1 :]
            file = (Path(listed.store.path) / below).resolve()
            if (
                _STORE_FILE.fullmatch(below)
                and file.is_relative_to(listed.within)
                and file.is_file()
            ):
                return file
            raise AbsentError(f"{path}: no such file")
        return None

    def _cached(self, path: str, make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        made = make()
        with self._lock:
            if path not in self._kept:
                self._kept[path] = made
                self._kept_bytes += len(made)
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def _made(self, path: str) -> Callable[[], bytes]:
        """Return what makes the bytes of a path."""
        parts = path.split("/")
        stem, _, ending = parts[-1].rpartition(".")
        results = self.results
        if ending != _ENDINGS.get(parts[0], "json"):
            raise AbsentError(f"{path}: no such thing")
        match parts:
            case ["catalog.json"]:
                return lambda: json_bytes({**results.described(), **self.told})
            case ["scores.json"]:
                return lambda: json_bytes(tables.scores(results))
            case ["datasets", _] if stem in results.datasets:
                return lambda: json_bytes(results.images(stem))
            case ["details", kind, dataset, _]:
                listed = self._listed(path, kind, dataset, stem)
                return lambda: json_bytes(
                    listed.details(results.ids(dataset), results.index(dataset))
                )
            case ["thumbnails", dataset, _] if dataset in results.datasets:
                number = _number(path, stem, len(results.ids(dataset)))
                return lambda: thumbnail(results, dataset, number)
            case ["views", kind, dataset, model, _]:
                listed = self._listed(path, kind, dataset, model)
                row = _number(path, stem, listed.store.n_images)
                return lambda: view(results, listed, row)
            case ["cka", dataset, _] if dataset in results.datasets and NAME.fullmatch(stem):
                return lambda: json_bytes(tables.cka(results, dataset, stem))
            case ["heads", dataset, _] if dataset in results.datasets and NAME.fullmatch(stem):
                return lambda: json_bytes(tables.heads(results, dataset, stem))
            case ["components", kind, dataset, model, _]:
                return self._of_layer(path, kind, dataset, model, stem, derived.components)
            case ["points", kind, dataset, model, asked, _]:
                features, _, method = asked.partition("-")

                def points(store: FeatureStore, layer: int) -> dict[str, Any]:
                    of = tables.regions(results, dataset, store) if features == "regions" else {}
                    return {**derived.points(store, layer, features, method), **of}

                return self._of_layer(path, kind, dataset, model, stem, points)
            case ["vectors", kind, dataset, model, features, _]:
                return self._of_layer(
                    *(path, kind, dataset, model, stem),
                    lambda store, layer: derived.vectors(store, layer, features).tobytes(),
                )
            case ["metrics", kind, dataset, model, metric, _]:
                return self._of_layer(
                    *(path, kind, dataset, model, stem),
                    lambda store, layer: derived.metric(store, layer, metric).tobytes(),
                )
        raise AbsentError(f"{path}: no such thing")

    def _listed(self, path: str, kind: str, dataset: str, model: str) -> Listed:
        listed = self.results.stores.get((kind, dataset, model))
        if listed is None:
            raise AbsentError(f"{path}: no such store")
        return listed

    def _of_layer(
        self,
        path: str,
        kind: str,
        dataset: str,
        model: str,
        stem: str,
        make: Callable[[Any, int], Any],
    ) -> Callable[[], bytes]:
        store = self._listed(path, kind, dataset, model).store
        layer = _number(path, stem, len(store.layers))

        def made() -> bytes:
            with self._computing:
                # Whoever waited here for the same path finds it made.
                if (kept := self._kept.get(path)) is not None:
                    return kept
                value = make(store, layer)
            return value if isinstance(value, bytes) else json_bytes(value)

        return made


_ENDINGS = {"thumbnails": "webp", "views": "webp", "vectors": "f32", "metrics": "f32"}
"""Of paths by their first part; all others are JSON."""

_BINARY = "application/octet-stream"


def _number(path: str, text: str, below: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= below:
        raise AbsentError(f"{path}: no such number")
    return int(text)


def json_bytes(value: Any) -> bytes:
    """Write JSON as every browser reads it: numbers that are none are a bug."""
    text = io.StringIO()
    json.dump(value, text, allow_nan=False, separators=(",", ":"))
    return text.getvalue().encode()
