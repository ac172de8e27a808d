"""Arrays of a store as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vitfeat.store.stored_array import StoredArray


class StoreDataset(Dataset[dict[str, Any]]):
    """Items of a store, one an image; :meth:`FeatureStore.torch_dataset` documents them.

    A batch of indices is read at once, chunk by chunk, when the loader asks for it
    (``__getitems__``). A store that is pickled is opened anew: so is this in a process of its own.
    """

    def __init__(
        self,
        store: Mapping[str, StoredArray],
        names: Sequence[str],
        layers: int | list[int],
        labels: NDArray[np.int64],
        image_ids: Sequence[str],
    ) -> None:
        self._store = store
        self._names = names
        self._layers = layers
        self._labels = labels
        self._image_ids = image_ids

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return several items, reading each chunk once."""
        rows = np.arange(len(self))[indices]
        unique, back = np.unique(rows, return_inverse=True)
        columns: dict[str, torch.Tensor] = {}
        for name in self._names:
            values = self._store[name][unique, self._layers]
            columns[name] = torch.from_numpy(np.ascontiguousarray(values))
        return [
            {
                **{name: column[b] for name, column in columns.items()},
                "label": int(self._labels[row]),
                "image_id": self._image_ids[row],
            }
            for row, b in zip(rows, back, strict=True)
        ]
