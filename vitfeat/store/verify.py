"""Read a store whole and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store
from vitfeat.store.paths import remedy
from vitfeat.store.reader import FeatureStore
from vitfeat.store.seal import check_files
from vitfeat.store.stored_array import UnreadableError


class Damage(NamedTuple):
    """What is wrong with a shard."""

    array: str
    shard: int
    reason: str

    def __str__(self) -> str:
        return f"{self.array}, shard {self.shard}: {self.reason}"


def verify(path: str | Path) -> tuple[FeatureStore, list[Damage]]:
    """Decode every chunk of a store, which checks its checksums, and look for NaN and inf."""
    store = open_store(path)
    if store.files.is_remote:
        check_files(store.files, store.attributes["sealed"], metadata=True)
    return store, list(_damages(store))


def _damages(store: FeatureStore) -> Iterator[Damage]:
    for name in store.coordinate_names:
        try:
            store.array(name)[:]
        except UnreadableError as error:
            yield Damage(name, 0, error.reason)
    for name, array in store.items():
        facts = store.attributes["sealed"]["arrays"][name]
        if [*array.shape] != facts["shape"] or str(array.dtype) != facts["dtype"]:
            raise StoreError(
                f"{store.path}: {name} is {array.dtype} {array.shape}, sealed as {facts['dtype']} "
                f"{tuple(facts['shape'])}; {remedy(store.path)}"
            )
        if store.is_limited(name):
            store.rows(name)
        rows = array.shards[0]
        for shard in range(facts["shards"]):
            try:
                values = array[shard * rows : (shard + 1) * rows]
            except UnreadableError as error:
                yield Damage(name, shard, error.reason)
                continue
            if not np.isfinite(values).all():
                yield Damage(name, shard, "holds NaN or inf")
