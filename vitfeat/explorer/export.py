"""The explorer without a server: a folder for any host of files, or one HTML file.

Stores are written anew with the chosen images alone, one layer of one image a chunk; everything
else that the page asks for is made beforehand, under the same paths.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
import zarr.storage
from numpy.typing import NDArray

from vitfeat.errors import DataError, VitfeatError
from vitfeat.explorer import derived, tables
from vitfeat.explorer.catalog import Listed, Results, probe
from vitfeat.explorer.content import PAGE, PAGE_FILES, json_bytes
from vitfeat.explorer.pictures import thumbnail, view
from vitfeat.files import replacing
from vitfeat.store.limits import chosen_rows
from vitfeat.text import nearest, size

MOST_IMAGES = 20
"""Of a single file."""

ARRAYS = (
    "cls",
    "registers",
    "spatial",
    "attention",
    "attention_summary/prefix_query",
    "attention_summary/spatial_query",
    "attention_summary/entropy",
)
"""What of a store is exported, as far as it is there: what the page reads."""

_TOKENS = 256

_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)

Files = Iterator[tuple[str, bytes]]


@dataclass(frozen=True)
class Choice:
    """What is exported.

    Attributes
    ----------
    images
        Of each dataset: how many, spread over it, or their ids.
    models, datasets
        Which; None for all.
    """

    images: int | Sequence[str]
    models: Sequence[str] | None = None
    datasets: Sequence[str] | None = None

    def check(self, results: Results) -> None:
        """Refuse what is not there.

        Raises
        ------
        DataError
            In one line.
        """
        known = {
            "model": (self.models, sorted({model for _, _, model in results.stores})),
            "dataset": (self.datasets, results.datasets),
        }
        for what, (wanted, there) in known.items():
            for name in wanted or ():
                if name not in there:
                    raise DataError(
                        f"--{what}s: no store of the {what} {name!r}{nearest(name, there)}; there "
                        f"are {', '.join(there)}"
                    )

    def has(self, listed: Listed) -> bool:
        """Return whether a store is exported."""
        return (self.models is None or listed.model in self.models) and (
            self.datasets is None or listed.dataset in self.datasets
        )


def export_site(results: Results, choice: Choice, out: Path) -> str:
    """Write a folder that any host of files can serve that serves parts of them.

    Returns
    -------
    str
        What was written, in words.

    Raises
    ------
    DataError
        The folder holds something already, or what is chosen is not there.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: not empty; give a new folder, or empty this one")
    choice.check(results)
    total = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as workplace:
        for path, content in _site(results, choice):
            total += len(content)
            written = Path(workplace) / "site" / path
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(content)
        if out.exists():
            out.rmdir()
        (Path(workplace) / "site").replace(out)
    return f"{out}: {size(total)}"


def _site(results: Results, choice: Choice) -> Files:
    yield from exported(results, choice)
    for name in PAGE_FILES:
        content = PAGE.joinpath(name).read_text("utf-8")
        if name == "index.html":
            content = _with_policy(content, "'self'")
        yield name, content.encode()


def export_file(results: Results, choice: Choice, out: Path) -> str:
    """Write one HTML file of a few images, which opens by itself.

    Returns
    -------
    str
        What was written, in words.

    Raises
    ------
    DataError
        More than :data:`MOST_IMAGES` images, or what is chosen is not there.
    """
    choice.check(results)
    files = {}
    for path, content in exported(results, choice):
        files[path] = base64.b64encode(content).decode()
        if path == "catalog.json":
            count = sum(one["images"] for one in json.loads(content)["datasets"])
            if count > MOST_IMAGES:
                raise DataError(
                    f"--single-file is for up to {MOST_IMAGES} images, and {count} are chosen: "
                    "give --images and --datasets, or --export for a folder"
                )
    style, script = (PAGE.joinpath(name).read_text("utf-8") for name in ("app.css", "app.js"))
    page = _with_policy(PAGE.joinpath("index.html").read_text("utf-8"), "'unsafe-inline'")
    data = json.dumps(files).replace("<", "\\u003c")
    script = script.replace("</script", "<\\/script")
    for link, inline in (
        ('<link rel="preload" href="catalog.json" as="fetch" crossorigin />', ""),
        ('<link rel="stylesheet" href="app.css" />', f"<style>{style}</style>"),
        (
            '<script type="module" src="app.js"></script>',
            f'<script id="vitfeat-files" type="application/json">{data}</script>\n'
            f'<script type="module">{script}</script>',
        ),
    ):
        assert link in page
        page = page.replace(link, inline)
    with replacing(out) as partial:
        partial.write_text(page, "utf-8")
    return f"{out}: {size(len(page))}"


def _with_policy(page: str, scripts: str) -> str:
    policy = _POLICY.format(scripts=scripts)
    head = '<meta charset="utf-8" />'
    assert head in page
    return page.replace(
        head, f'{head}\n    <meta http-equiv="Content-Security-Policy" content="{policy}" />'
    )


def exported(results: Results, choice: Choice) -> Files:
    """Give every file of an export but the page's own, the catalogue first."""
    stores = [listed for listed in results.stores.values() if choice.has(listed)]
    if not stores:
        raise DataError("no store is of these models and datasets")
    datasets = [name for name in results.datasets if any(s.dataset == name for s in stores)]
    places = {name: _places(results, name, choice.images) for name in datasets}
    datasets = [name for name in datasets if places[name]]
    if not datasets:
        raise DataError("--ids: no dataset has an image of these ids")
    parts = [_Part(results, listed, places[listed.dataset]) for listed in stores]
    parts = [part for part in parts if len(part.rows)]
    models = {part.listed.model for part in parts}
    catalog = results.described()
    yield (
        "catalog.json",
        json_bytes(
            {
                **catalog,
                "models": [one for one in catalog["models"] if one["id"] in models],
                "datasets": [
                    {**one, "images": len(places[one["name"]])}
                    for one in catalog["datasets"]
                    if one["name"] in datasets
                ],
                "stores": [part.described() for part in parts],
                "remarks": [],
            }
        ),
    )
    for name in datasets:
        yield from _dataset(results, name, places[name], models)
    scores = tables.scores(results)
    curves = [one for one in scores["curves"] if one["model"] in models]
    yield "scores.json", json_bytes({"curves": curves, "remarks": []})
    for part in parts:
        yield from part.files()


def _places(results: Results, dataset: str, images: int | Sequence[str]) -> list[int]:
    ids = list(results.ids(dataset))
    if not isinstance(images, int):
        images = [name for name in images if name in results.ids(dataset)]
        if not images:
            return []
    return [int(place) for place in chosen_rows(images, ids, "the chosen images")]


def _dataset(results: Results, name: str, places: Sequence[int], models: set[str]) -> Files:
    found = results.images(name)
    some = {
        "ids": [found["ids"][place] for place in places],
        "labels": [found["labels"][place] for place in places],
        "classes": found["classes"],
    }
    yield f"datasets/{name}.json", json_bytes(some)
    if not results.pictures(name):
        for number, place in enumerate(places):
            yield f"thumbnails/{name}/{number}.webp", thumbnail(results, name, place)
    for tokens in results.cka_tokens(name):
        cka = tables.cka(results, name, tokens)
        pairs = {
            estimator: [one for one in some if {one["a"], one["b"]} <= models]
            for estimator, some in cka["estimators"].items()
        }
        yield f"cka/{name}/{tokens}.json", json_bytes({"estimators": pairs, "remarks": []})


class _Part:
    """Some images of a store, as a store of its own."""

    def __init__(self, results: Results, listed: Listed, places: Sequence[int]) -> None:
        self.results = results
        self.listed = listed
        store = listed.store
        ids = results.ids(listed.dataset)
        row_of = {ids[name]: row for row, name in enumerate(store.image_ids)}
        # Images of the export that this store is of, by their number there.
        self.numbers = [n for n, place in enumerate(places) if place in row_of]
        self.rows = [row_of[places[n]] for n in self.numbers]
        self.all_places = len(self.numbers) == len(places)
        self.names = [name for name in ARRAYS if name in store]

    def entries(self, name: str) -> NDArray[np.int64]:
        """Return the entries of an array that are of the chosen images, in their order."""
        store = self.listed.store
        if not store.is_limited(name):
            return np.asarray(self.rows, dtype=np.int64)
        rows = store.rows(name)
        return np.concatenate([np.flatnonzero(rows == row) for row in self.rows])

    def described(self) -> dict[str, Any]:
        """Return the store as the catalogue of the export has it."""
        described = self.listed.described()
        arrays = {}
        for name in self.names:
            if count := len(self.entries(name)):
                known = described["arrays"][name]
                arrays[name] = {**known, "shape": [count, *known["shape"][1:]]}
        return {**described, "images": len(self.rows), "arrays": arrays}

    def details(
        self, arrays: Mapping[str, bytes], probed: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return what the page is told of the rows, and of the arrays as they were written."""
        listed = self.listed
        ids = self.results.ids(listed.dataset)
        found = listed.details(ids, self.results.index(listed.dataset))
        details: dict[str, Any] = {
            "places": None if self.all_places else self.numbers,
            "rows": {},
            "probe": probed,
            "metadata": {
                name: json.loads(arrays[f"{name}/zarr.json"])
                for name in self.names
                if f"{name}/zarr.json" in arrays
            },
        }
        number_of = {row: number for number, row in enumerate(self.rows)}
        for tap, rows in found["rows"].items():
            details["rows"][tap] = sorted(number_of[row] for row in rows if row in number_of)
        if "grids" in found:
            details["grids"] = [found["grids"][row] for row in self.rows]
        if "boxes" in found:
            boxes = found["boxes"]
            details["boxes"] = boxes if len(boxes) == 1 else [boxes[row] for row in self.rows]
        return details

    def files(self) -> Files:
        """Give the store's files, and what the page is told of it."""
        listed = self.listed
        where = f"{listed.kind}/{listed.dataset}/{listed.model}"
        arrays, probed = self._arrays()
        for name, content in arrays.items():
            yield f"{listed.path}/{name}", content
        yield f"details/{where}.json", json_bytes(self.details(arrays, probed))
        if not self.results.pictures(listed.dataset):
            for number, row in enumerate(self.rows):
                yield f"views/{where}/{number}.webp", view(self.results, listed, row)
        if listed.kind == "features":
            yield from self._derived(where)
            try:
                heads = tables.heads(self.results, listed.dataset, listed.model)
            except VitfeatError:
                return
            yield f"heads/{listed.dataset}/{listed.model}.json", json_bytes(heads)

    def _arrays(self) -> tuple[dict[str, bytes], dict[str, Any] | None]:
        """Write the chosen images' arrays; return the files, and a number to check them by."""
        kept: dict[str, Any] = {}
        group = zarr.open_group(zarr.storage.MemoryStore(kept), mode="w")
        store = self.listed.store
        probed = None
        for name in self.names:
            entries = self.entries(name)
            if not len(entries):
                continue
            array = store[name]
            ragged = store.entry_dim(name) == "token"
            chunk = (min(_TOKENS, len(entries)) if ragged else 1, 1, *array.shape[2:])
            rows = -(-len(entries) // chunk[0]) * chunk[0]
            written = group.create_array(
                name,
                shape=(len(entries), *array.shape[1:]),
                dtype=array.dtype,
                chunks=chunk,
                shards=(rows, *array.shape[1:]),
                compressors=[
                    zarr.codecs.BloscCodec(cname="lz4", shuffle=zarr.codecs.BloscShuffle.bitshuffle)
                ],
                fill_value=float("nan"),
            )
            values = np.stack(
                [np.asarray(array[entries, layer]) for layer in range(array.shape[1])], axis=1
            )
            written[...] = values
            probed = probed or probe(name, values)
        return {name: content.to_bytes() for name, content in kept.items()}, probed

    def _derived(self, where: str) -> Files:
        """Give what the server would make when it is asked, as far as the store can give it."""
        store = self.listed.store
        features = [kind for kind, name in derived.FEATURES.items() if name in store]
        for layer in range(len(store.layers)):
            if "spatial" in store:
                yield (
                    f"components/{where}/{layer}.json",
                    json_bytes(derived.components(store, layer)),
                )
            for kind in features:
                vectors = derived.vectors(store, layer, kind)[self.rows]
                yield f"vectors/{where}/{kind}/{layer}.f32", vectors.tobytes()
                points = derived.points(store, layer, kind, "pca")
                some = {axis: [points[axis][row] for row in self.rows] for axis in ("x", "y")}
                content = json_bytes({**points, **some})
                yield f"points/{where}/{kind}-pca/{layer}.json", content
            for name in derived.METRICS:
                try:
                    values = derived.metric(store, layer, name)
                except VitfeatError:
                    continue
                yield f"metrics/{where}/{name}/{layer}.f32", values[self.rows].tobytes()
