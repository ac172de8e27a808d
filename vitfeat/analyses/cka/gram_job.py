"""Gram matrices of a store's features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import image_features
from vitfeat.jobs.reading import reader, rows_that_fit
from vitfeat.numerics.gram import Gram, Read, add, gram, token_means
from vitfeat.numerics.gramfile import NOTHING, GramFile, GramMeta, write_gram_file, write_left_out
from vitfeat.store.layout import TOKEN_ARRAYS
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore


def write_grams(
    store_path: Path,
    tokens: str,
    out: Path,
    *,
    without_cls: str = "leave_out",
    parts: Sequence[Path] = (),
    max_bytes: int = 2 * 2**30,
    device: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> None:
    """Compute the Gram matrix of every layer of a store and write them to one file.

    Parameters
    ----------
    store_path
        The store.
    tokens
        ``cls``, ``mean`` (of the spatial tokens), ``spatial`` (all spatial tokens flattened) or
        ``all`` (every token flattened).
    out
        The file to write.
    without_cls
        Of ``cls`` where the model has no CLS token: ``leave_out`` writes a file of no layers,
        ``mean`` takes the mean of the spatial tokens. The file says which.
    parts
        Files with Gram matrices of some of these tokens: theirs are added, not computed again.
    max_bytes
        Bound on the features in memory.
    device
        Where the products are computed; ``auto`` takes a GPU where there is one.
    log
        Called with one line where something stands in for the CLS token, or nothing does.

    Raises
    ------
    AnalysisError
        When the store lacks tokens that the model has, or they are to be flattened and images have
        different numbers of them; or a part is of other features or no part of what is asked for.
    """
    store = open_store(store_path)
    known = [GramFile(p) for p in parts]
    for part in known:
        if part.meta.features_fingerprint != store.fingerprint:
            raise AnalysisError(
                f"{part.path}: Gram matrices of other features than {store_path}; compute them anew"
            )
    made_from = _made_from(store, tokens, without_cls, log)
    meta = GramMeta(
        model=store.model,
        dataset=store_path.parent.name,
        tokens=tokens,
        image_fingerprint=store.image_fingerprint,
        features_fingerprint=store.fingerprint,
        made_from=made_from,
    )
    if made_from == NOTHING:
        write_left_out(out, store.n_images, meta)
        return
    if store.is_ragged and made_from in ("spatial", "all"):
        raise AnalysisError(
            f"{store_path}: images have different numbers of tokens, and flattened ones "
            f"({tokens!r}) cannot be compared; take cls or mean, or extract the dataset in the "
            "view square or padded"
        )
    wanted = [n for n in TOKEN_ARRAYS[made_from] if store.model_has(n)]
    _check_parts(known, tokens, [] if made_from == "mean" else wanted)
    done = {part.meta.made_from for part in known}
    if absent := [n for n in wanted if n not in store and n not in done]:
        raise AnalysisError(
            f"{store_path}: no {' and no '.join(absent)} in this store (it holds "
            f"{store.held}), which the token kind {made_from!r} is made of; "
            f"extract them, or leave {tokens!r} out of analyses.cka.tokens or the model out of "
            "models"
        )
    names = [n for n in wanted if n not in done]
    target = torch_device_name(device)
    # Of the mean of tokens, half is for the tokens that are read and half for the means.
    share = max_bytes // 2 if made_from == "mean" else max_bytes

    def read(name: str, position: int) -> Read:
        if made_from == "mean" and store.is_ragged:
            return lambda start, stop: image_features(
                store, "mean", position, np.arange(start, stop)
            )
        features = reader(store, name, position)
        if made_from != "mean":
            return features
        width = store[name].shape[-1]
        # Beside the tokens as they are stored, the sum of an image in float64.
        return token_means(
            features, width, rows_that_fit(store[name], max_bytes - share, extra=8 * width)
        )

    def layers() -> Iterator[Gram]:
        for position in range(len(store.layers)):
            terms = [part.gram(position) for part in known]
            terms += [
                gram(read(n, position), store.n_images, max_bytes=share, device=target)
                for n in names
            ]
            total = terms[0]
            for term in terms[1:]:
                total = add(total, term)
            yield total

    write_gram_file(out, store.layers, layers(), meta)


def _made_from(
    store: FeatureStore, tokens: str, without_cls: str, log: Callable[[str], None]
) -> str:
    """Return the token kind that a Gram file is really made from, or ``NOTHING``."""
    if tokens != "cls" or store.model_has("cls"):
        return tokens
    if without_cls == "mean":
        log(f"{store.model} has no CLS token: the mean of its spatial tokens stands in")
        return "mean"
    log(f"{store.model} has no CLS token: left out")
    return NOTHING


def _check_parts(parts: Sequence[GramFile], tokens: str, kinds: Sequence[str]) -> None:
    """Insist on parts that add up: each once, and of tokens flattened, for means do not add."""
    left = list(kinds)
    for part in parts:
        if part.meta.made_from not in left:
            raise AnalysisError(
                f"{part.path}: Gram matrices of {part.meta.made_from!r} are no further part of "
                f"{tokens!r}; to be added are {', '.join(left) or 'none'}"
            )
        left.remove(part.meta.made_from)
