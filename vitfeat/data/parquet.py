"""Images in Parquet files or in a folder that ``datasets.save_to_disk`` wrote (Arrow files).

A column of images is a struct of ``bytes`` and ``path``, as Hugging Face's datasets have it, or
of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitfeat.data.containers import (
    FOLDER,
    PLACE,
    Found,
    broken,
    containers_of,
    listing_of,
    opened,
    shown,
    the_only,
)
from vitfeat.data.folders import Tally
from vitfeat.data.images import printable
from vitfeat.data.index import Place
from vitfeat.data.listing import Listing
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

# Rows that are decoded together: images are read in order, and few fit into memory at once.
_ROWS = 32


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of all files, in the order of the files and of their rows."""
    found: list[Found] = []
    names: list[str] | None = None
    for container in containers_of(spec):
        file = _opened(spec, container)
        features = _features(file.schema)
        images, labels, ids = _columns(spec, container, file.schema, features)
        of_file = features.get(labels or "", {}).get("names") or []
        if names is not None and of_file != names:
            called = printable(shown(spec, container))
            raise DataError(f"dataset {spec.name}: {called} has other names of classes than others")
        names = of_file
        found += _rows(spec, container, file, images, labels, ids)
    return listing_of(spec, found, names or (), ordered=True)


def read(path: Path, place: Place) -> bytes:
    """Read an image of a row."""
    value = opened(_File, path).value(place.part, place.offset)
    data = value["bytes"] if isinstance(value, dict) else value
    if data is None:
        raise ValueError("the row has no bytes, only a path: save the dataset with its images")
    return bytes(data)


class _File:
    """Batches of a Parquet or Arrow file, from any row on."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._arrow: Any = None
        self._rest: Iterator[Any] = iter(())
        self._at: tuple[str, int, Any] = ("", 0, [])
        if path.suffix.lower() == ".parquet":
            # Buffered: a column of a whole row group may be larger than the memory.
            self._parquet = pq.ParquetFile(path, buffer_size=2**20)
            self.schema = self._parquet.schema_arrow
            groups = self._parquet.metadata
            self._starts = [0]
            for group in range(groups.num_row_groups):
                self._starts.append(self._starts[-1] + groups.row_group(group).num_rows)
            return
        mapped = pa.memory_map(str(path))
        try:
            self._arrow = pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            self._arrow = pa.ipc.open_file(mapped).read_all()
        self.schema = self._arrow.schema

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """Yield all rows of some columns; ``a.b`` is a field of one."""
        if self._arrow is None:
            yield from self._parquet.iter_batches(columns=columns)
            return
        yield from self._arrow.select([c.partition(".")[0] for c in columns]).to_batches()

    def value(self, column: str, row: int) -> Any:
        """Return the value of a column in a row: fast for the rows after the last one."""
        if self._arrow is not None:
            return self._arrow.column(column)[row].as_py()
        known, start, batch = self._at
        if known != column or row < start or row >= start + len(batch):
            start, batch = self._batch(column, row)
        return batch[row - start].as_py()

    def _batch(self, column: str, row: int) -> tuple[int, Any]:
        known, start, batch = self._at
        group = next(g for g, end in enumerate(self._starts[1:]) if row < end)
        at = start + len(batch)
        if known != column or not self._starts[group] <= at <= row:
            at = self._starts[group]
            self._rest = self._parquet.iter_batches(
                _ROWS, row_groups=[*range(group, len(self._starts) - 1)], columns=[column]
            )
        for read in self._rest:
            self._at = (column, at, read.column(0))
            if row < at + len(read):
                return self._at[1:]
            at += len(read)
        raise EOFError(f"the file ends before row {row}")


def _opened(spec: DatasetSpec, container: str) -> _File:
    try:
        return opened(_File, spec.root / container)
    except (OSError, ValueError) as error:
        raise broken(spec, container, error) from None


def _features(schema: Any) -> dict[str, Any]:
    """Return what Hugging Face's datasets say of the columns; nothing where they say nothing."""
    try:
        said = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {k: v for k, v in said.items() if isinstance(v, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def _columns(
    spec: DatasetSpec, container: str, schema: Any, features: dict[str, Any]
) -> tuple[str, str | None, str | None]:
    """Return the columns of images, labels and ids."""
    import pyarrow as pa

    def is_image(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    fit = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    fit = fit or [name for name in schema.names if is_image(schema.field(name).type)]
    images = the_only(spec, "images", container, schema.names, fit)
    if not is_image(schema.field(images).type):
        kind = schema.field(images).type
        raise spec.error("images", f"{images} of {shown(spec, container)} is {kind}: no bytes")
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = classes[0] if len(classes) == 1 else "label" if "label" in schema.names else None
    if spec.labels is not None:
        named = spec.labels != FOLDER
        labels = the_only(spec, "labels", container, schema.names, []) if named else None
    ids = None
    if spec.ids not in (None, PLACE):
        ids = the_only(spec, "ids", container, schema.names, [])
    elif pa.types.is_struct(schema.field(images).type):
        ids = f"{images}.path" if schema.field(images).type.get_field_index("path") >= 0 else None
    return images, labels, ids


def _rows(
    spec: DatasetSpec,
    container: str,
    file: _File,
    images: str,
    labels: str | None,
    ids: str | None,
) -> Iterator[Found]:
    called, row = shown(spec, container), 0
    wanted = [c for c in (labels, ids) if c is not None] or [images]
    try:
        for batch in file.batches(wanted):
            names = _texts(batch, ids)
            for name, label in zip(names, _texts(batch, labels), strict=True):
                # -1 is how Hugging Face's datasets say that a row has no label.
                known = None if label == "-1" else label
                yield Found(name, f"{called}#row={row}", known, Place(container, images, row))
                row += 1
    except (OSError, ValueError) as error:
        raise broken(spec, container, error) from None


def _texts(batch: Any, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(batch)
    whole = column in batch.schema.names
    outer, _, inner = (column, "", "") if whole else column.partition(".")
    values = batch.column(outer).field(inner) if inner else batch.column(outer)
    return [None if value is None else str(value) for value in values.to_pylist()]
