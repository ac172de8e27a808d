"""Features of a store as a file that other programs read: a vector of each image and layer.

===================  ==========================================================================
``.parquet``         a row a layer and image: ``image_id``, ``label``, ``class_name``, ``layer``,
                     ``vector``; with images also ``image``, a struct of ``bytes`` and ``path``
``.h5``              ``image_id``, ``label``, ``class_name``, and an array (image, channel) a layer,
                     which is called by its number
``.npy``             (image, channel) of one layer; beside it a CSV of ids, labels and classes
===================  ==========================================================================

:mod:`vitfeat.data.vectors` reads them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.index import Index
from vitfeat.data.indexed import data_of
from vitfeat.errors import AnalysisError
from vitfeat.files import replacing
from vitfeat.jobs.features import ARRAYS, image_features, image_rows
from vitfeat.jobs.reading import slices
from vitfeat.store.reader import FeatureStore, Layers
from vitfeat.tables import write_table

# Images whose vectors are in memory at once.
_IMAGES = 1024


class ImageRow(NamedTuple):
    """An image beside its vector; -1 and nothing without a label."""

    image_id: str
    label: int
    class_name: str


@dataclass(frozen=True)
class _Exported:
    """Features of one kind, of some layers."""

    store: FeatureStore
    kind: str
    positions: Sequence[int]
    images: tuple[Index, Path] | None

    @cached_property
    def rows(self) -> list[ImageRow]:
        """The images that there are features of."""
        store, labels = self.store, self.store.labels.tolist()
        return [
            ImageRow(store.image_ids[row], labels[row], store.classes.get(labels[row], ""))
            for row in image_rows(store, self.kind).tolist()
        ]

    @property
    def numbers(self) -> list[int]:
        """The layers."""
        return [self.store.layers[position] for position in self.positions]

    def pieces(self, position: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield runs of images, and their vectors of one layer."""
        for start, stop in slices(len(self.rows), _IMAGES):
            used = np.arange(start, stop)
            yield slice(start, stop), image_features(self.store, self.kind, position, used)


def export_features(
    store: FeatureStore,
    out: Path,
    kind: str = "cls",
    layers: Layers = "last",
    *,
    images: tuple[Index, Path] | None = None,
) -> int:
    """Write features of images to a file, in float32, and return of how many images they are.

    Parameters
    ----------
    store
        The store.
    out
        The file, whose ending says how it is written.
    kind
        ``cls``, the ``mean`` of the spatial tokens, or ``attention_mean``.
    layers
        Layers by name or number; one of a ``.npy``.
    images
        The dataset's index and folder, whose images go into a ``.parquet``, too.

    Raises
    ------
    AnalysisError
        The store has no such features, or the file cannot hold what is asked.
    """
    write = _WAYS.get(out.suffix.lower())
    if write is None:
        raise AnalysisError(f"{out}: no file of features; written are {', '.join(_WAYS)}")
    if ARRAYS[kind] not in store:
        raise AnalysisError(
            f"{store.path}: no {ARRAYS[kind]} in this store (it holds {store.held}), which "
            f"{kind!r} is made of; choose other features"
        )
    positions = store.layer_positions(layers)
    if write is _write_npy and len(positions) > 1:
        raise AnalysisError(f"{out}: holds one layer, not {len(positions)}; write .parquet or .h5")
    if images is not None and write is not _write_parquet:
        raise AnalysisError(f"{out}: holds no images; write .parquet, or leave them out")
    if images is not None and images[0].fingerprint != store.image_fingerprint:
        raise AnalysisError(f"{store.path}: is not of the images of this index; give its own")
    exported = _Exported(store, kind, positions, images)
    try:
        with replacing(out) as partial:
            write(exported, partial)
    except ModuleNotFoundError as error:
        extra = "hdf5" if write is _write_hdf5 else "parquet"
        what = f"is written by {error.name}: pip install 'vitfeat[{extra}]'"
        raise AnalysisError(f"{out}: {what}") from None
    if write is _write_npy:
        write_table(out.with_suffix(".csv"), ImageRow, exported.rows)
    return len(exported.rows)


def _write_npy(exported: _Exported, path: Path) -> None:
    (position,) = exported.positions
    vectors = np.concatenate([piece for _, piece in exported.pieces(position)])
    with path.open("wb") as file:
        np.save(file, vectors)


def _write_hdf5(exported: _Exported, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in zip(ImageRow._fields, zip(*exported.rows, strict=True), strict=True):
            file[name] = list(values)
        for number, position in zip(exported.numbers, exported.positions, strict=True):
            for some, vectors in exported.pieces(position):
                shape = (len(exported.rows), vectors.shape[1])
                held = file.require_dataset(str(number), shape, np.float32)
                held[some] = vectors


def _write_parquet(exported: _Exported, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index, root = exported.images or (None, Path())
    place = {} if index is None else {name: row for row, name in enumerate(index.image_id)}
    columns: dict[str, Any] = {
        **dict(zip(ImageRow._fields, (pa.string(), pa.int64(), pa.string()), strict=True)),
        "layer": pa.int64(),
        "vector": pa.list_(pa.float32()),
    }
    if index is not None:
        columns["image"] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema(columns)
    with pq.ParquetWriter(path, schema) as file:
        for number, position in zip(exported.numbers, exported.positions, strict=True):
            for some, vectors in exported.pieces(position):
                rows = exported.rows[some]
                table: dict[str, Any] = dict(
                    zip(ImageRow._fields, map(list, zip(*rows, strict=True)), strict=True)
                )
                table["layer"] = [number] * len(rows)
                table["vector"] = list(vectors)
                if index is not None:
                    table["image"] = [
                        {"bytes": data_of(index.row(place[r.image_id]), root), "path": r.image_id}
                        for r in rows
                    ]
                file.write_table(pa.table(table, schema=schema))


_WAYS: dict[str, Callable[[_Exported, Path], None]] = {
    ".parquet": _write_parquet,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npy": _write_npy,
}
