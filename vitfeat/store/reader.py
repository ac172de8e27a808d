"""Reading a store: lazy, labelled, and only when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.errors import StoreError
from vitfeat.models.layers import select_layers
from vitfeat.store import codec
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION, SUMMARY_GROUP
from vitfeat.store.writer import partial_path
from vitfeat.text import nearest

if TYPE_CHECKING:
    import xarray

    from vitfeat.store.torch_dataset import StoreDataset


class FeatureStore:
    """One sealed store: what one model holds of one dataset in one view.

    Opening checks that every shard is there and reads nothing else. Arrays are read when they are
    sliced: ``store["cls"][:, 5]`` decodes one layer.
    """

    def __init__(self, path: Path, group: zarr.Group, attributes: dict[str, Any]) -> None:
        self.path = path
        self._group = group
        self.attributes = attributes

    def __repr__(self) -> str:
        return (
            f"<FeatureStore {self.path}: {self.n_images} images, {len(self.layers)} layers, "
            f"{', '.join(self.array_names)}>"
        )

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """Return an array by name, for example ``cls`` or ``attention_summary/aligned``."""
        if name not in self.array_names:
            raise StoreError(
                f"{self.path}: no array {name!r}{nearest(name, self.array_names)}; it holds "
                f"{', '.join(self.array_names)}"
            )
        return self.array(name)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return a feature array or a coordinate by name."""
        try:
            found = self._group[name]
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise StoreError(
                f"{self.path}: the metadata of {name} are damaged; remove the store and extract it "
                "again"
            ) from error
        assert isinstance(found, zarr.Array)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.array_names

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the feature arrays."""
        return tuple(self.attributes["sealed"]["arrays"])

    @property
    def model(self) -> str:
        """Id of the model."""
        return str(self.attributes["model"])

    def model_has(self, name: str) -> bool:
        """Return whether the model has the tokens of an array at all, stored or not."""
        if name == "cls":
            return bool(self.attributes["has_cls"])
        if name == "registers":
            return bool(self.attributes["n_registers"])
        return True

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

    def layer_positions(self, wanted: str | int | Sequence[str | int] = "all") -> list[int]:
        """Return where named or numbered layers stand in the arrays.

        Names (``first``, ``q1``, ``middle``, ``q3``, ``last``, ``all``) refer to the stored layers,
        numbers to the model's.
        """
        names = [wanted] if isinstance(wanted, str | int) else list(wanted)
        positions: set[int] = set()
        for name in names:
            if isinstance(name, str):
                positions.update(select_layers(len(self.layers), name))
            elif name in self.layers:
                positions.add(self.layers.index(name))
            else:
                raise StoreError(f"{self.path}: layer {name} is not stored; it has {self.layers}")
        return sorted(positions)

    def to_xarray(self) -> xarray.Dataset:
        """Return everything as one lazy, labelled dataset.

        Summaries keep their names behind ``attention_summary/``. A plain
        ``xarray.open_zarr(path)`` opens the features just as well.
        """
        import xarray

        def opened(group: str | None) -> xarray.Dataset:
            found: xarray.Dataset = xarray.open_zarr(
                self.path, group=group, chunks=None, consolidated=False
            )
            return found

        dataset = opened(None)
        if any(n.startswith(f"{SUMMARY_GROUP}/") for n in self.array_names):
            summary = opened(SUMMARY_GROUP)
            names = {str(n): f"{SUMMARY_GROUP}/{n}" for n in summary.data_vars}
            dataset = dataset.merge(summary.rename(names))
        labelled: xarray.Dataset = dataset.set_coords(["image_id", "label"])
        return labelled

    def torch_dataset(
        self,
        arrays: Sequence[str] = ("cls",),
        layers: str | int | Sequence[str | int] = "last",
    ) -> StoreDataset:
        """Return a map-style :class:`torch.utils.data.Dataset` over the images.

        Parameters
        ----------
        arrays
            Names of arrays.
        layers
            Layers by name or number.

        Returns
        -------
        StoreDataset
            Items are dicts: each array (layer, ...) as a tensor (no layer dimension when one layer
            was asked for by name or number), ``label`` and ``image_id``.
        """
        from vitfeat.store.torch_dataset import StoreDataset

        return StoreDataset(self, arrays, layers)

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the arrays that label the features."""
        summaries = any(n.startswith(f"{SUMMARY_GROUP}/") for n in self.array_names)
        return (
            "image_id",
            "label",
            "layer",
            *(f"{SUMMARY_GROUP}/{n}" for n in ("layer", "dy", "dx") if summaries),
        )

    def missing_shards(self) -> Iterator[tuple[str, int]]:
        """Yield (array, block) of shards whose file is absent; all of an array without metadata."""
        for name in self.coordinate_names:
            if not all((self.path / name / f).is_file() for f in ("zarr.json", "c/0")):
                yield name, 0
        for name, facts in self.attributes["sealed"]["arrays"].items():
            folder = self.path / name / "c"
            if not (self.path / name / "zarr.json").is_file():
                yield name, 0
                continue
            rest = "/".join(["0"] * (len(facts["shape"]) - 1))
            for block in range(facts["shards"]):
                if not (folder / str(block) / rest).is_file():
                    yield name, block


def open_store(path: str | Path, *, check_manifest: bool = True) -> FeatureStore:
    """Open a feature store.

    Parameters
    ----------
    path
        The store's folder, ``results/features/{dataset}/{model}.zarr``.
    check_manifest
        Whether the store must be the one that the manifest beside it was sealed for.

    Returns
    -------
    FeatureStore
        Lazy: only metadata is read.

    Raises
    ------
    StoreError
        When there is no store, it is unfinished, damaged, of an unknown format version, or not the
        one that its manifest was sealed for.
    """
    path = Path(path)
    if not path.exists():
        partial = partial_path(path)
        if partial.exists():
            raise StoreError(
                f"{path}: the extraction has not finished ({partial.name} is there); run it again "
                "to go on"
            )
        raise StoreError(f"{path}: no such store; extract it first (snakemake, or vitfeat extract)")
    try:
        with codec.pipeline():
            group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        attributes: Any = group.attrs.asdict()[ATTRIBUTE]
        version = attributes["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise StoreError(f"{path}: not a feature store of vitfeat ({reason})") from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: format version {version}; this vitfeat reads {FORMAT_VERSION}: extract the "
            "store again, or use the vitfeat that wrote it"
        )
    if "sealed" not in attributes:
        raise StoreError(f"{path}: the store was never sealed; remove it and extract again")
    store = FeatureStore(path, group, attributes)
    for name, block in store.missing_shards():
        raise StoreError(
            f"{path}: block {block} of {name} is missing; remove the store and extract it again"
        )
    if check_manifest:
        _check_manifest(store)
    return store


def _check_manifest(store: FeatureStore) -> None:
    """Compare with the manifest beside the store, where the workflow left one."""
    path = manifest_path(store.path)
    if not path.is_file():
        return
    try:
        asked = json.loads(path.read_text("utf-8"))["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest of a store; remove it and run again") from error
    if asked != store.fingerprint:
        raise StoreError(
            f"{store.path}: sealed for other settings than its manifest {path.name} says "
            f"({store.fingerprint[:12]}… against {asked[:12]}…); extract it again"
        )


def is_store(path: Path) -> bool:
    """Return whether a folder is a store of ours, in whatever state: only such may be replaced."""
    try:
        metadata = json.loads((path / "zarr.json").read_text("utf-8"))
        return ATTRIBUTE in metadata["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def manifest_path(store: Path) -> Path:
    """Return where the manifest of a store stands: ``a.zarr`` has ``a.json``."""
    return store.with_suffix(".json")
