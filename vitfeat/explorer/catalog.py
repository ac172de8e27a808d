"""What a folder of results holds, as the explorer's page is told it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vitfeat.config.parsing import read_config
from vitfeat.data.index import Index
from vitfeat.data.listing import Candidate
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo.datasets import embedded_root
from vitfeat.errors import DataError, VitfeatError
from vitfeat.figures.style import family_colour
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.shapes import size_name
from vitfeat.store.opening import open_store
from vitfeat.store.paths import Url
from vitfeat.store.reader import FeatureStore

KINDS = {"features": "features", "attention_maps": "attention_maps/stores"}
"""Kinds of stores, and the folder below the results where ``{dataset}/{model}.zarr`` stand."""

GIVEN = "images"
"""The dataset's name where stores are shown by themselves."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What datasets and models may be called (the rules' wildcards)."""


@dataclass(frozen=True)
class Listed:
    """A store of the results: its kind, dataset and model, and where links in it may lead."""

    kind: str
    dataset: str
    model: str
    path: str
    store: FeatureStore
    within: Path

    def described(self) -> dict[str, Any]:
        """Return what the page must know before it reads the store."""
        store = self.store
        sealed = store.attributes["sealed"]["arrays"]
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "model": self.model,
            "path": self.path,
            "images": store.n_images,
            "layers": store.layers,
            "grid": None if store.is_ragged else list(store.grid),
            "cls": bool(store.attributes["has_cls"]),
            "registers": int(store.attributes["n_registers"]),
            "arrays": {
                name: {"shape": sealed[name]["shape"], "limited": store.is_limited(name)}
                for name in store.array_names
            },
        }

    def details(self, ids: Mapping[str, int], index: Index | None) -> dict[str, Any]:
        """Return which images of the dataset its rows and those of limited arrays are.

        Parameters
        ----------
        ids
            The dataset's images by id, with their places.
        index
            The dataset's index, which knows the images' sizes.
        """
        store = self.store
        places = [ids[name] for name in store.image_ids]
        found: dict[str, Any] = {
            # Nearly every store is of all images of its dataset, in their order.
            "places": None if places == list(range(len(ids))) else places,
            "rows": {},
            "probe": _probe(store),
            # The page then asks for chunks at once.
            "metadata": {name: store[name].metadata for name in store.array_names},
        }
        for name in store.array_names:
            if store.is_limited(name) and store.entry_dim(name) not in ("token", "region"):
                found["rows"].setdefault(name.partition("/")[0], store.rows(name).tolist())
        if store.is_ragged:
            found["grids"] = store.grid_shapes.tolist()
        if index is not None and max(places) < len(index):
            sizes = [index.seen_size(place) for place in places]
            box_of = {size: self._box(*size) for size in set(sizes)}
            found["boxes"] = [box_of[size] for size in sizes[: 1 if len(box_of) == 1 else None]]
        return found

    def _box(self, width: int, height: int) -> list[float]:
        """Return what the model saw of an image, in parts of its width and height."""
        left, top, right, bottom = self.store.view.box(width, height)
        box = left / width, top / height, right / width, bottom / height
        return [round(edge, 5) for edge in box]


def index_of(store: FeatureStore, images: Path) -> Index:
    """Look at a store's images in a folder, and return their index.

    Raises
    ------
    DataError
        One is not there.
    """
    names = {label: store.classes.get(label, "") for label in {-1, *store.labels.tolist()}}
    rows = zip(store.image_ids, store.labels.tolist(), strict=True)
    candidates = [Candidate(name, label, names[label]) for name, label in rows]
    spec = DatasetSpec(name=GIVEN, layout="flat", root=images)
    return build_index(spec, candidates=candidates)


def probe(name: str, array: Any) -> dict[str, Any]:
    """Return a number of an array, which the page must read alike before it shows any."""
    place = [array.shape[0] - 1, array.shape[1] - 1, *[0] * (array.ndim - 2)]
    return {"array": name, "place": place, "value": float(array[tuple(place)])}


def _probe(store: FeatureStore) -> dict[str, Any] | None:
    names = (name for name in ("cls", "spatial", "attention") if name in store)
    return next((probe(name, store[name]) for name in names), None)


@dataclass
class Results:
    """A folder of results, and where the images of its datasets are.

    Attributes
    ----------
    folder
        The results, resolved.
    roots
        Folder of each dataset's images.
    entries
        Models by id, in the order of the figures.
    remarks
        What could not be opened, a line each.
    given
        Stores that are shown by themselves, in the place of those of the folder.
    """

    folder: Path
    roots: dict[str, Path] = field(default_factory=dict)
    entries: dict[str, ModelEntry] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    given: list[Listed] | None = None

    @classmethod
    def of(cls, folder: Path, config: Path | None, roots: Mapping[str, Path]) -> Results:
        """Look at a folder of results.

        Parameters
        ----------
        folder
            The results.
        config
            The config that they were made with: it knows where images are, and names of models.
        roots
            Folders of datasets' images, by dataset, before those of the config.

        Raises
        ------
        DataError
            The folder holds no store.
        ConfigError
            The config is wrong.
        """
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folder of results")
        results = cls(folder.resolve())
        if config is not None:
            results._read_config(config)
        results.roots |= {name: Path(root).resolve() for name, root in roots.items()}
        results.entries = {**results.entries, **builtin_catalog()}
        if not results.stores:
            why = f": {results.remarks[0]}" if results.remarks else ""
            raise DataError(
                f"{folder}: no store can be opened in features/ or attention_maps/stores/{why}; "
                "give the folder that the config's `results` names, or run the workflow first"
            )
        return results

    def _read_config(self, path: Path) -> None:
        config = read_config(path)
        for name, spec in config.datasets.items():
            embedded = spec.root == embedded_root(config.results, spec.layout)
            # Embedded images stand beside the results, wherever those were moved to.
            root = embedded_root(self.folder, spec.layout) if embedded else spec.root
            self.roots[name] = root.resolve()
        self.entries |= {entry.id: entry for entry in config.models}

    @cached_property
    def stores(self) -> dict[tuple[str, str, str], Listed]:
        """The stores that can be opened, by kind, dataset and model."""
        return {(s.kind, s.dataset, s.model): s for s in self._open_stores()}

    @classmethod
    def of_stores(cls, stores: Sequence[FeatureStore], images: Path | None) -> Results:
        """Look at some stores of one dataset, wherever they are.

        Parameters
        ----------
        stores
            The stores.
        images
            The folder that their images' ids are relative to.

        Raises
        ------
        DataError
            A store is behind a URL, or an image is not there.
        """
        given: list[Listed] = []
        for store in stores:
            if isinstance(store.path, Url):
                raise DataError(f"{store.path}: the explorer shows stores on a disk; copy it here")
            same = sum(listed.model.startswith(store.model) for listed in given)
            model = f"{store.model}-{same + 1}" if same else store.model
            path = Path(store.path).resolve()
            where = f"features/{GIVEN}/{model}.zarr"
            given.append(Listed("features", GIVEN, model, where, store, path.parent))
        results = cls(given[0].within, entries=dict(builtin_catalog()), given=given)
        if images is not None:
            results.roots[GIVEN] = images.resolve()
            results._indexes[GIVEN] = index_of(given[0].store, images)
        return results

    def _open_stores(self) -> Iterator[Listed]:
        if self.given is not None:
            yield from self.given
            return
        order = {name: place for place, name in enumerate(self.entries)}
        for kind, below in KINDS.items():
            paths = (self.folder / below).glob("*/*.zarr")
            for path in sorted(paths, key=lambda p: (p.parts[-2], order.get(p.stem, 1e9), p.stem)):
                dataset, model = path.parts[-2], path.stem
                if not (NAME.fullmatch(dataset) and NAME.fullmatch(model)):
                    continue
                # A link out of the results is not followed.
                if not path.resolve().is_relative_to(self.folder):
                    self.remarks.append(f"{below}/{dataset}/{path.name}: leads out of the results")
                    continue
                try:
                    store = open_store(path)
                except VitfeatError as error:
                    self.remarks.append(str(error))
                    continue
                yield Listed(
                    kind, dataset, model, f"{below}/{dataset}/{path.name}", store, self.folder
                )

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets of which there is a store."""
        order = {name: place for place, name in enumerate(self.roots)}
        names = {dataset for _, dataset, _ in self.stores}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    @cached_property
    def _indexes(self) -> dict[str, Index | None]:
        indexes: dict[str, Index | None] = {}
        for dataset in self.datasets:
            try:
                indexes[dataset] = Index.read(self.folder / "datasets" / f"{dataset}.csv")
            except (VitfeatError, OSError):
                indexes[dataset] = None
        return indexes

    def index(self, dataset: str) -> Index | None:
        """Return a dataset's index; None where it cannot be read."""
        return self._indexes[dataset]

    @cached_property
    def _ids(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for dataset in self.datasets:
            index = self.index(dataset)
            names = dict.fromkeys(() if index is None else index.image_id)
            for listed in self.stores.values():
                if listed.dataset == dataset:
                    names |= dict.fromkeys(listed.store.image_ids)
            found[dataset] = {name: place for place, name in enumerate(names)}
        return found

    def ids(self, dataset: str) -> dict[str, int]:
        """Return a dataset's images, with their places: those of its index, then of its stores."""
        return self._ids[dataset]

    def pictures(self, dataset: str) -> str:
        """Return why there are no pictures of a dataset; empty where there are."""
        if self.given is not None and dataset not in self.roots:
            return "say where they are: images=FOLDER"
        if self.index(dataset) is None:
            return (
                f"datasets/{dataset}.csv, the index of the images, is not there or cannot be read"
            )
        root = self.roots.get(dataset)
        if root is None:
            return (
                f"nobody says where the images are: give --configfile, or --root {dataset}=FOLDER"
            )
        return "" if root.is_dir() else f"{root} does not exist: give --root {dataset}=FOLDER"

    def described(self) -> dict[str, Any]:
        """Return the catalogue that the page starts from."""
        stores = self.stores
        models = dict.fromkeys(model for _, _, model in stores)
        order = {name: place for place, name in enumerate(self.entries)}
        return {
            "name": self.folder.name,
            "models": [
                self._model(name) for name in sorted(models, key=lambda m: (order.get(m, 1e9), m))
            ],
            "datasets": [self._dataset(name) for name in self.datasets],
            "stores": [listed.described() for listed in stores.values()],
            "remarks": self.remarks,
        }

    def _model(self, name: str) -> dict[str, str]:
        entry = self.entries.get(name)
        if entry is None:
            return {
                "id": name,
                "label": name,
                "family": "",
                "size": "",
                "colour": family_colour(""),
            }
        return {
            "id": name,
            "label": entry.label or name,
            "family": entry.family,
            "size": size_name(entry),
            "colour": family_colour(entry.family),
        }

    def _dataset(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "images": len(self.ids(name)),
            "pictures": self.pictures(name),
            "cka": self.cka_tokens(name),
            "heads": sorted(path.stem for path in (self.folder / "attention" / name).glob("*.csv")),
        }

    def cka_tokens(self, dataset: str) -> list[str]:
        """Return the kinds of tokens that there are CKA tables of."""
        return sorted(
            path.name
            for path in (self.folder / "cka" / dataset).glob("*")
            if NAME.fullmatch(path.name) and any(path.glob("*--*.csv"))
        )

    def images(self, dataset: str) -> dict[str, Any]:
        """Return ids, labels and classes of a dataset's images."""
        ids = self.ids(dataset)
        labels = [-1] * len(ids)
        classes: dict[int, str] = {}
        for listed in self.stores.values():
            if listed.dataset == dataset:
                classes |= listed.store.classes
                for name, label in zip(listed.store.image_ids, listed.store.labels, strict=True):
                    labels[ids[name]] = int(label)
        return {"ids": list(ids), "labels": labels, "classes": classes}
