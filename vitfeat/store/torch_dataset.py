"""A store as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vitfeat.errors import StoreError
from vitfeat.models.layers import is_one_layer
from vitfeat.store import opening

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore, Layers


class StoreDataset(Dataset[dict[str, Any]]):
    """Items of a store, one an image; :meth:`FeatureStore.torch_dataset` documents them.

    A batch of indices is read at once, chunk by chunk, when the loader asks for it
    (``__getitems__``), and the store is opened anew in every worker process.
    """

    def __init__(
        self,
        store: FeatureStore,
        arrays: str | Sequence[str],
        layers: Layers,
    ) -> None:
        self._path = store.path
        self._names = [arrays] if isinstance(arrays, str) else list(arrays)
        if not self._names:
            raise StoreError(f"{store.path}: no array is asked for; it holds {', '.join(store)}")
        self._positions = store.layer_positions(layers)
        self._single = is_one_layer(layers)
        self._labels = store.labels
        self._image_ids = store.image_ids
        self._store: FeatureStore | None = store
        for name in self._names:
            held = store[name].shape[0]  # an unknown name is told here, not in a worker
            if store.is_limited(name):
                raise StoreError(
                    f"{store.path}: {name} has {held} entries for {store.n_images} images: no "
                    f"dataset of images; read it by store[{name!r}] and store.rows({name!r}), "
                    "or extract it without a limit, or in another view"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return several items, reading each chunk once."""
        if self._store is None:
            self._store = opening.open_store(self._path)
        rows = np.arange(len(self))[indices]
        unique, back = np.unique(rows, return_inverse=True)
        columns: dict[str, torch.Tensor] = {}
        for name in self._names:
            values = self._store[name][unique, self._positions]
            tensor = torch.from_numpy(np.ascontiguousarray(values))
            columns[name] = tensor[:, 0] if self._single else tensor
        return [
            {
                **{name: column[b] for name, column in columns.items()},
                "label": int(self._labels[row]),
                "image_id": self._image_ids[row],
            }
            for row, b in zip(rows, back, strict=True)
        ]
