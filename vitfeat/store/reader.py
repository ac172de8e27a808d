"""Reading a store: lazy, labelled, and only when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.views import View, view_from
from vitfeat.errors import StoreError
from vitfeat.final_norm import FinalNorm
from vitfeat.models.layers import is_one_layer, select_layers
from vitfeat.store.arrays import FINAL_NORM_GROUP, SUMMARY_GROUP, group_of, rows_name
from vitfeat.store.files import Files
from vitfeat.store.layout import ATTRIBUTE
from vitfeat.store.paths import is_dropped, remedy
from vitfeat.store.provenance import IMPORTED
from vitfeat.store.stored_array import Picks, StoredArray
from vitfeat.text import nearest, plural

if TYPE_CHECKING:
    import xarray

    from vitfeat.store.torch_dataset import StoreDataset


Layers = str | int | Sequence[str | int]
"""Layers by name or number: one, or several."""

Images = int | str | slice | Sequence[int] | Sequence[str] | NDArray[Any]
"""Images by id or row: one, or several."""

Labels = int | str | Sequence[int] | Sequence[str]
"""Classes by name or number: one, or several."""

Entries = Picks | None
"""Which of an array's entries are meant, by their place along its first dimension; None is all."""

# Ids among which the nearest to a misspelt one is looked for, and classes that an error shows.
_SEARCHED = 20_000
_SHOWN = 12


class FeatureStore(Mapping[str, StoredArray]):
    """One sealed store: what one model holds of one dataset in one view.

    A mapping from names to arrays, which are read when they are indexed: ``store["cls"][:, 5]``
    decodes one layer, ``store["cls"]["cat.jpg", -1]`` the last layer of one image. :meth:`sel`
    chooses images, classes and layers by name and gives labelled arrays.

    >>> list(store)
    ['cls', 'spatial']
    >>> store["cls"][:, -1].shape
    (6, 4)
    >>> store["cls"]["cat/0.png"].shape
    (3, 4)
    """

    def __init__(
        self, files: Files, root: Mapping[str, Any], facts: Mapping[str, NDArray[np.int64]]
    ) -> None:
        self.path = files.place
        self.files = files
        self._facts = facts
        self.attributes: Mapping[str, Any] = root["attributes"][ATTRIBUTE]
        self._metadata: Mapping[str, Any] = root["consolidated_metadata"]["metadata"]
        self._arrays: dict[str, StoredArray] = {}

    # Two stores are compared by their fingerprints, not array by array.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return (
            f"<FeatureStore {self.path}: {self.n_images} images, {len(self.layers)} layers, "
            f"{self.held}>"
        )

    def _repr_html_(self) -> str:
        from vitfeat.store.html import describe_html

        return describe_html(self.path, self, self.attributes)

    def __getitem__(self, name: str) -> StoredArray:
        """Return an array by name, for example ``cls`` or ``attention_summary/aligned``."""
        if name in self.dropped:
            raise StoreError(
                f"{self.path}: {name} was dropped after use, as extraction.keep says; extract the "
                "store again to have it"
            )
        if name not in self:
            raise StoreError(
                f"{self.path}: no array {name!r}{nearest(str(name), self.array_names)}; it holds "
                f"{self.held}"
            )
        return self.array(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.array_names

    def __iter__(self) -> Iterator[str]:
        return iter(self.array_names)

    def __len__(self) -> int:
        """Return the number of arrays; ``n_images`` is that of images."""
        return len(self.array_names)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an array, or what is given in its place where the store has none."""
        if name not in self:
            return default
        return self[name]

    def array(self, name: str) -> StoredArray:
        """Return a feature array or a coordinate by name."""
        if name not in self._arrays:
            try:
                entries_of = self._entries_of if name in self else None
                self._arrays[name] = StoredArray(
                    *(self.files, name, self._metadata[name], entries_of),
                    *(self.fingerprint, self._facts.get(name)),
                )
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
                raise StoreError(
                    f"{self.path}: the metadata of {name} are damaged; {remedy(self.path)}"
                ) from error
        return self._arrays[name]

    def _entries_of(self, name: str, image: str) -> int | NDArray[np.intp]:
        """Return which of an array's entries are of an image: one, or of several all."""
        row = self.row(image)
        if not self.is_limited(name):
            return row
        entries = np.flatnonzero(self.rows(name) == row)
        if self.entry_dim(name) in ("region", "token"):
            return entries
        if not len(entries):
            raise StoreError(
                f"{self.path}: {name} is kept of {plural(len(self.rows(name)), 'image')}, and "
                f"{image!r} is none of them; store.rows({name!r}) says which"
            )
        return int(entries[0])

    @cached_property
    def array_names(self) -> tuple[str, ...]:
        """Names of the feature arrays."""
        return tuple(n for n in self.attributes["sealed"]["arrays"] if n not in self.dropped)

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Names of feature arrays that were dropped after use, as the extraction was asked to."""
        names = self.attributes["sealed"]["arrays"]
        return tuple(name for name in names if is_dropped(self.path, name))

    @property
    def held(self) -> str:
        """The feature arrays in words, and what was dropped."""
        gone = f"; dropped after use: {', '.join(self.dropped)}" if self.dropped else ""
        return f"{', '.join(self.array_names)}{gone}"

    @property
    def model(self) -> str:
        """Id of the model."""
        return str(self.attributes["model"])

    @property
    def is_imported(self) -> bool:
        """Whether its features were made elsewhere: a vector an image and layer."""
        return bool(self.attributes["request"]["model"]["source"] == IMPORTED)

    @property
    def layer_names(self) -> list[str]:
        """Names of imported layers; none where layers have numbers alone."""
        return [str(name) for name in self.attributes["request"]["model"].get("layer_names", ())]

    def model_has(self, name: str) -> bool:
        """Return whether the model has the tokens of an array at all, stored or not."""
        tokens = name.rpartition("/")[2]
        if self.is_imported:
            return name == "spatial"
        if tokens == "cls":
            return bool(self.attributes["has_cls"])
        if tokens == "registers":
            return bool(self.attributes["n_registers"])
        return True

    def is_limited(self, name: str) -> bool:
        """Return whether an array has not one entry an image; :meth:`rows` says whose they are."""
        return name in self and self.entry_dim(name) != "image"

    def entry_dim(self, name: str) -> str:
        """Return the first dimension of an array."""
        if name == "regions":
            return "region"
        if name == "spatial" and self.is_ragged:
            return "token"
        shape = self.attributes["sealed"]["arrays"][name]["shape"]
        return "image" if int(shape[0]) == self.n_images else f"{name.partition('/')[0]}_image"

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return which rows of the store the entries of an array are of, int64 (entry,).

        They ascend: 0 ... N - 1 unless images have no or several entries.
        """
        array = self[name]
        if not self.is_limited(name):
            return np.arange(self.n_images, dtype=np.int64)
        coordinate = rows_name(name, self.entry_dim(name))
        if coordinate == "token_start":
            return np.repeat(np.arange(self.n_images), np.diff(self.token_start))
        rows = self._coordinate(coordinate)
        # Several regions may be of one image.
        step = 0 if coordinate == "region_image" else 1
        ascending = bool((np.diff(rows) >= step).all())
        if len(rows) != array.shape[0] or not ascending or rows[0] < 0 or rows[-1] >= self.n_images:
            raise StoreError(
                f"{self.path}: {coordinate} does not say which rows {name} holds; "
                f"{remedy(self.path)}"
            )
        return rows

    def _coordinate(self, name: str) -> NDArray[np.int64]:
        return np.asarray(self.array(name)[:], dtype=np.int64)

    @property
    def is_ragged(self) -> bool:
        """Whether images have token grids of their own."""
        return "grid" not in self.attributes and self.attributes["request"]["view"]["kind"] == (
            "dense"
        )

    @cached_property
    def grid_shapes(self) -> NDArray[np.int64]:
        """int64 (image, 2): rows and columns of every image's token grid."""
        if not self.is_ragged:
            return np.tile(np.array(self.grid, dtype=np.int64), (self.n_images, 1))
        return self._coordinate("grid_shape")

    @cached_property
    def token_start(self) -> NDArray[np.int64]:
        """int64 (image + 1,): where the spatial tokens of each image start, image by image."""
        return np.concatenate([[0], np.cumsum(self.grid_shapes.prod(1))])

    @cached_property
    def region_numbers(self) -> NDArray[np.int64]:
        """int64 (region,): which of the dataset's regions the entries of ``regions`` are."""
        return self._coordinate("region")

    @cached_property
    def view(self) -> View:
        """How images became inputs: what rectangle of an image its tokens show."""
        return view_from(self.attributes["request"]["view"])

    @cached_property
    def final_norm(self) -> FinalNorm | None:
        """The norm behind the model's last block; None where it has none, or is not stored."""
        described = self.attributes.get("final_norm")
        if described is None:
            return None
        scale, shift = (
            np.asarray(self.array(f"{FINAL_NORM_GROUP}/{name}")[:], dtype=np.float32)
            for name in ("scale", "shift")
        )
        return FinalNorm(
            described["kind"], scale, shift, described["eps"], bool(described["pooled"])
        )

    @property
    def has_branches(self) -> bool:
        """Whether the model's blocks add attention and MLP to skips of their own.

        True of stores of an earlier vitfeat, which do not say.
        """
        return bool(self.attributes.get("has_branches", True))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        if self.is_ragged:
            raise StoreError(
                f"{self.path}: its images have token grids of different sizes; use grid_shapes, or "
                "extract the dataset in the view square or padded"
            )
        if "grid" in self.attributes:
            rows, columns = self.attributes["grid"]
            return int(rows), int(columns)
        for name, axis in (("spatial", 2), (f"{SUMMARY_GROUP}/spatial_query_renormalised", 3)):
            if name in self:
                rows, columns = self[name].shape[axis : axis + 2]
                return rows, columns
        raise StoreError(
            f"{self.path}: does not tell the rows and columns of its token grid; extract it again"
        )

    @property
    def n_images(self) -> int:
        """Number of rows."""
        return int(self.attributes["request"]["data"]["n_images"])

    @property
    def layers(self) -> list[int]:
        """Numbers of the stored layers, counted from 0."""
        return [int(v) for v in self.attributes["request"]["layers"]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the store's numbers."""
        return str(self.attributes["fingerprint"])

    @property
    def image_fingerprint(self) -> str:
        """SHA-256 of the images: equal in stores whose rows are the same images."""
        return str(self.attributes["request"]["data"]["fingerprint"])

    @property
    def classes(self) -> dict[int, str]:
        """Name of each label that is there."""
        return {int(label): name for label, name in self.attributes["classes"].items()}

    @cached_property
    def image_ids(self) -> list[str]:
        """Path of each image relative to the dataset's root."""
        return [str(v) for v in np.asarray(self.array("image_id")[:])]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 (image,): the label of each image, -1 without one."""
        return np.asarray(self.array("label")[:], dtype=np.int64)

    def has_layer(self, number: int) -> bool:
        """Return whether a layer is stored, by its number, or from the end where negative."""
        return number in self.layers or -len(self.layers) <= number < 0

    def layer_positions(self, wanted: Layers = "all") -> list[int]:
        """Return where named or numbered layers stand in the arrays.

        Names (``first``, ``q1``, ``middle``, ``q3``, ``last``, ``all``, and those of imported
        layers) and negative numbers refer to the stored layers, other numbers are the model's.
        """
        single = isinstance(wanted, str) or is_one_layer(wanted)
        names = cast("Sequence[str | int]", [wanted] if single else wanted)
        positions: set[int] = set()
        for name in names:
            if name in self.layer_names:
                positions.add(self.layer_names.index(name))
            elif isinstance(name, str):
                positions.update(select_layers(len(self.layers), name))
            elif not hasattr(name, "__index__") or isinstance(name, bool):
                raise StoreError(f"{self.path}: layer {name!r} is neither a name nor a number")
            elif self.has_layer(name):
                positions.add(self.layers.index(name) if name >= 0 else len(self.layers) + name)
            else:
                raise StoreError(f"{self.path}: layer {name} is not stored; it has {self.layers}")
        return sorted(positions)

    def tokens(self, image: int | str, layer: int | str = "last") -> NDArray[Any]:
        """Read the spatial tokens of one image, by row or id, and layer, as its grid.

        Returns
        -------
        numpy.ndarray
            (Y, X, channel), in the stored type. ``view.box(width, height)`` is the rectangle of the
            image that the grid covers.
        """
        row = self.row(image)
        positions = self.layer_positions(layer)
        if len(positions) != 1:
            raise StoreError(f"{self.path}: tokens are read of one layer at a time, not {layer!r}")
        return image_tokens(self, row, positions[0])

    def row(self, image: int | str) -> int:
        """Return the row of an image by its id, or by its row, from the end where negative."""
        if isinstance(image, str):
            if image not in self._row_of:
                raise StoreError(
                    f"{self.path}: no image {image!r}{self._nearest_image(image)}; image_ids has "
                    "all"
                )
            return self._row_of[image]
        # True is a whole number, and 1.5 can be made one; neither is a row.
        is_row = hasattr(image, "__index__") and not isinstance(image, bool)
        if not is_row or not -self.n_images <= image < self.n_images:
            raise StoreError(f"{self.path}: no row {image!r}; it has {self.n_images} images")
        return int(image) % self.n_images

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image: row for row, image in enumerate(self.image_ids)}

    def _nearest_image(self, image: str) -> str:
        """Name an image of the same file name, or else the nearest one."""
        file = image.rpartition("/")[2]
        same = next((i for i in self.image_ids if i.rpartition("/")[2] == file), None)
        if same is not None:
            return f" (did you mean {same!r}?)"
        # Of a million names the search would take minutes.
        return nearest(image, self.image_ids[:_SEARCHED])

    def sel(
        self,
        image: Images | None = None,
        label: Labels | None = None,
        layer: Layers = "all",
    ) -> xarray.Dataset:
        """Choose images, classes and layers by name; what is left is labelled and lazy.

        ``store.sel(image="cat.jpg", layer=-1)["cls"]`` is a vector, ``store.sel(label="cat",
        layer="last")["cls"]`` the CLS tokens of a class. A single image or layer has no dimension
        of its own any more; several stand in the order in which they were given.

        Parameters
        ----------
        image
            An id, a row, a slice of rows, or several.
        label
            A class by name or number, or several; -1 is that of images without one.
        layer
            As :meth:`layer_positions` takes it.

        Returns
        -------
        xarray.Dataset
            As :meth:`to_xarray` gives it. Arrays of some images only have those of them that were
            chosen; none that is not kept of a single chosen image.

        Examples
        --------
        >>> store.sel(image="cat/0.png", layer=-1)["cls"].sizes
        Frozen({'channel': 4})
        >>> store.sel(label="dog", layer=["first", "last"])["cls"].sizes
        Frozen({'image': 3, 'layer': 2, 'channel': 4})
        """
        from vitfeat.store.labelled import of_images

        dataset = self.to_xarray().isel(layer=self._layers(layer))
        if image is None and label is None:
            return dataset
        limited = filter(self.is_limited, self)
        held = {self.entry_dim(name): self.rows(name) for name in limited}
        return of_images(dataset, self._rows(image, label), held)

    def _layers(self, wanted: Layers) -> int | list[int]:
        """Return where layers stand in the arrays: of a single one a number."""
        positions = self.layer_positions(wanted)
        return positions[0] if is_one_layer(wanted) else positions

    def _rows(self, images: Images | None, labels: Labels | None) -> int | Picks:
        """Return the rows of some images, in the order in which they were given."""
        rows: int | Picks
        if images is None:
            rows = np.arange(self.n_images)
        elif isinstance(images, slice):
            rows = np.arange(self.n_images)[images]
        elif isinstance(images, str) or np.ndim(images) == 0:
            rows = self.row(images)  # type: ignore[arg-type]
        elif np.asarray(images).dtype == bool:
            rows = np.arange(self.n_images)[np.asarray(images)]
        else:
            each: Any = images
            rows = np.asarray([self.row(image) for image in each], dtype=np.intp)
        if labels is None:
            return rows
        rows = np.atleast_1d(rows)
        return rows[np.isin(self.labels[rows], self._numbers(labels))]

    def _numbers(self, labels: Labels) -> list[int]:
        """Return the numbers of classes by name or number; -1 is that of images without a label."""
        single = isinstance(labels, str) or np.ndim(labels) == 0
        numbers: list[int] = []
        for label in [labels] if single else list(labels):  # type: ignore[arg-type]
            known = [n for n, name in self.classes.items() if label in (name, n)]
            if not known and label != -1:
                names = [*self.classes.values()]
                more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                raise StoreError(
                    f"{self.path}: no class {label!r}{nearest(str(label), names)}; it has "
                    f"{', '.join(names[:_SHOWN]) or 'no labels'}{more}"
                )
            numbers += known or [-1]
        return numbers

    def to_xarray(self) -> xarray.Dataset:
        """Return everything as one lazy, labelled dataset.

        Arrays of a subgroup are named with a dot, ``attention_summary.entropy``, as NetCDF files
        and data frames can hold them. Arrays of some images only have a dimension of their own for
        them, ``{tap}_image``, whose coordinate is the row; regions have the coordinates ``region``,
        their number in the dataset's table, and ``region_image``, the row. The attribute
        ``vitfeat`` is all that the store says of itself, as JSON.

        Features that are stored as float16 are float32 here, the same numbers: xarray would sum
        float16 in float16, and NetCDF has none. ``store[name]`` reads what is stored.
        """
        from vitfeat.store.labelled import to_dataset

        coordinates = {name: self.array(name) for name in self.coordinate_names}
        # What NetCDF holds as well: texts, and all there is as JSON.
        attributes = {
            "model": self.model,
            "fingerprint": self.fingerprint,
            ATTRIBUTE: json.dumps(self.attributes, ensure_ascii=False),
        }
        return to_dataset(self, coordinates, attributes)

    def explore(self, images: str | PathLike[str] | None = None) -> Any:
        """Show the store in a notebook, with the folder of its images, or maps without pictures.

        :func:`vitfeat.widget` shows several stores side by side.
        """
        # As a notebook has it: the explorer reads stores, and they need it for nothing else.
        from vitfeat import widget

        return widget(self, images=images)

    def torch_dataset(
        self,
        arrays: str | Sequence[str] = "cls",
        layers: Layers = "last",
    ) -> StoreDataset:
        """Return a map-style :class:`torch.utils.data.Dataset` over the images.

        Its arrays are one or several that hold all images, its layers as :meth:`layer_positions`
        takes them. Items are dicts: each array (layer, ...) as a tensor (no layer dimension when
        one layer was asked for by name or number), ``label`` and ``image_id``.
        """
        from vitfeat.store.torch_dataset import StoreDataset

        names = [arrays] if isinstance(arrays, str) else list(arrays)
        if not names:
            raise StoreError(f"{self.path}: no array is asked for; it holds {', '.join(self)}")
        for name in names:
            held = self[name].shape[0]  # an unknown name is told here, not in a worker
            if self.is_limited(name):
                raise StoreError(
                    f"{self.path}: {name} has {held} entries for {self.n_images} images: no "
                    f"dataset of images; read it by store[{name!r}] and store.rows({name!r}), "
                    "or extract it without a limit, or in another view"
                )
        return StoreDataset(self, names, self._layers(layers), self.labels, self.image_ids)

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the arrays that label the features."""
        groups = dict.fromkeys(g for n in self.array_names if (g := group_of(n)))
        limited = dict.fromkeys(rows_name(n, self.entry_dim(n)) for n in self if self.is_limited(n))
        norm = (f"{FINAL_NORM_GROUP}/scale", f"{FINAL_NORM_GROUP}/shift")
        return (
            "image_id",
            "label",
            "layer",
            *(f"{group}/layer" for group in groups),
            *(f"{SUMMARY_GROUP}/{n}" for n in ("dy", "dx") if SUMMARY_GROUP in groups),
            *limited,
            *(("grid_shape",) if self.is_ragged else ()),
            *(("region",) if "regions" in self else ()),
            *(norm if "final_norm" in self.attributes else ()),
        )


def read_rows(
    store: FeatureStore,
    name: str,
    start: int,
    stop: int,
    position: int | None = None,
    entries: Entries = None,
) -> NDArray[Any]:
    """Read rows of an array, or of the entries that are meant, of all layers or of one."""
    rows = slice(start, stop) if entries is None else entries[start:stop]
    layers = slice(None) if position is None else position
    return np.asarray(store[name][rows, layers])


def image_tokens(
    store: FeatureStore, row: int, position: int, name: str = "spatial"
) -> NDArray[Any]:
    """Read spatial tokens (Y, X, channel) of one image and layer, whatever the store's grids."""
    if not store.is_ragged:
        return np.asarray(store[name][row, position])
    start, stop = (int(place) for place in store.token_start[row : row + 2])
    tokens = read_rows(store, name, start, stop, position)
    return np.reshape(tokens, (*store.grid_shapes[row].tolist(), tokens.shape[-1]))
