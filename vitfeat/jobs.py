"""What the commands do between stores and files: read, call a pure function, write.

The only place where analyses meet stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analysis.gram import Gram, add, gram
from vitfeat.analysis.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.store.layout import TOKEN_ARRAYS
from vitfeat.store.reader import FeatureStore, open_store


def write_grams(
    store_path: Path,
    tokens: str,
    out: Path,
    *,
    parts: Sequence[Path] = (),
    max_bytes: int = 2 * 2**30,
    device: str = "auto",
) -> None:
    """Compute the Gram matrix of every layer of a store and write them to one file.

    Parameters
    ----------
    store_path
        The store.
    tokens
        ``cls``, ``spatial`` (all spatial tokens flattened) or ``all`` (every token flattened).
    out
        The file to write.
    parts
        Files with Gram matrices of some of these tokens: theirs are added, not computed again.
    max_bytes
        Bound on the features in memory.
    device
        Where the products are computed; ``auto`` takes a GPU where there is one.

    Raises
    ------
    AnalysisError
        When the store lacks the tokens, or a part is of other features.
    """
    store = open_store(store_path)
    known = [GramFile(p) for p in parts]
    for part in known:
        if part.meta.features_fingerprint != store.fingerprint:
            raise AnalysisError(
                f"{part.path}: Gram matrices of other features than {store_path}; compute them anew"
            )
    done = {part.meta.tokens for part in known}
    wanted = [n for n in TOKEN_ARRAYS[tokens] if store.model_has(n) or tokens != "all"]
    if absent := [n for n in wanted if n not in store and n not in done]:
        raise AnalysisError(
            f"{store_path}: no {' and no '.join(absent)} in this store (it holds "
            f"{', '.join(store.array_names)}), which the token kind {tokens!r} is made of; extract "
            f"them, or leave {tokens!r} out of analyses.cka.tokens or the model out of models"
        )
    names = [n for n in wanted if n not in done]
    meta = GramMeta(
        model=store.model,
        dataset=store_path.parent.name,
        tokens=tokens,
        image_fingerprint=store.image_fingerprint,
        features_fingerprint=store.fingerprint,
    )
    target = torch_device_name(device)

    def layers() -> Iterator[Gram]:
        for position in range(len(store.layers)):
            terms = [part.gram(position) for part in known]
            terms += [
                gram(
                    _reader(store, n, position), store.n_images, max_bytes=max_bytes, device=target
                )
                for n in names
            ]
            total = terms[0]
            for term in terms[1:]:
                total = add(total, term)
            yield total

    write_gram_file(out, store.layers, layers(), meta)


def _reader(store: FeatureStore, name: str, position: int) -> Any:
    array = store[name]

    def read(start: int, stop: int) -> NDArray[Any]:
        try:
            return np.asarray(array[start:stop, position])
        except Exception as error:  # each codec raises its own class
            raise StoreError(
                f"{store.path}: images {start} to {stop - 1} of {name} cannot be decoded "
                f"({str(error).splitlines()[0]}); remove the store and extract it again"
            ) from error

    return read
