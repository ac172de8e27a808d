"""Gram matrices of a store's features, for all kinds of tokens that are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.jobs.features import image_features
from vitfeat.jobs.reading import reader, rows_that_fit
from vitfeat.numerics.gram import Gram, Read, add, gram, token_means
from vitfeat.numerics.gramfile import NOTHING, GramFile, GramMeta, write_gram_file, write_left_out
from vitfeat.store.layout import TOKEN_ARRAYS
from vitfeat.store.opening import open_store
from vitfeat.store.paths import Place, manifest_path
from vitfeat.store.reader import FeatureStore

logger = logging.getLogger(__name__)

_KIND = "{tokens}"


def write_grams(
    store_path: Place,
    out: Path,
    settings: CkaSettings,
    *,
    max_bytes: int = 2 * 2**30,
    device: str = "auto",
) -> None:
    """Compute the Gram matrix of every layer of a store for some kinds of tokens, a file a kind.

    A file that is there stays as it is if it is of the same features and no older than the store,
    so that a further kind costs its own.

    ``{tokens}`` in the path `out` is the kind. Of ``cls`` where the model has no CLS token, the
    settings' ``without_cls`` says whether a file of no layers is written or the mean of the spatial
    tokens is taken; the file says which. `max_bytes` bounds the features in memory.
    """
    if len(settings.tokens) > 1 and _KIND not in str(out):
        raise ConfigError(
            f"--out: found one file for {len(settings.tokens)} kinds of tokens "
            f"({', '.join(settings.tokens)}); its name needs {_KIND}, or choose one with --tokens"
        )
    store = open_store(store_path)
    kept = []
    spatial: GramFile | None = None
    for kind in sorted(settings.tokens, key=list(TOKEN_ARRAYS).index):
        path = Path(str(out).replace(_KIND, kind))
        meta = GramMeta(
            model=store.model,
            dataset=store_path.parent.name,
            tokens=kind,
            image_fingerprint=store.image_fingerprint,
            features_fingerprint=store.fingerprint,
            made_from=_made_from(store, kind, settings.without_cls),
        )
        if _is_current(path, meta, store_path):
            kept.append(kind)
        else:
            # Gram matrices add over features: spatial tokens, which are most, are read once.
            part = spatial if kind == "all" else None
            _write(store, path, meta, part, max_bytes, torch_device_name(device))
        if kind == "spatial":
            spatial = GramFile(path)
    if kept:
        logger.info(
            f"{store.model}: Gram matrices of {', '.join(kept)} are there, of the same features"
        )


def _is_current(path: Path, meta: GramMeta, store: Place) -> bool:
    """Return whether a file is what would be written, of a store that was not written since."""
    try:
        if path.stat().st_mtime < Path(manifest_path(store)).stat().st_mtime:
            return False
        return GramFile(path).meta == meta
    except (OSError, AnalysisError):
        return False


def _write(
    store: FeatureStore,
    out: Path,
    meta: GramMeta,
    spatial: GramFile | None,
    max_bytes: int,
    device: str,
) -> None:
    """Write one file; of the spatial tokens, what is given is not computed again."""
    tokens, made_from = meta.tokens, meta.made_from
    if made_from == NOTHING:
        write_left_out(out, store.n_images, meta)
        return
    if store.is_ragged and made_from in ("spatial", "all"):
        raise AnalysisError(
            f"{store.path}: images have different numbers of tokens, and flattened ones "
            f"({tokens!r}) cannot be compared; take cls or mean, or extract the dataset in the "
            "view square or padded"
        )
    done = [] if spatial is None else ["spatial"]
    names = [n for n in TOKEN_ARRAYS[made_from] if store.model_has(n) and n not in done]
    # Sums of three depend on their order: the same with and without a file of spatial tokens.
    names.sort(key=lambda name: name != "spatial")
    if absent := [n for n in names if n not in store]:
        raise AnalysisError(
            f"{store.path}: no {' and no '.join(absent)} in this store (it holds "
            f"{store.held}), which the token kind {made_from!r} is made of; "
            f"extract them, or leave {tokens!r} out of analyses.cka.tokens or the model out of "
            "models"
        )
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
            terms = [] if spatial is None else [spatial.gram(position)]
            terms += [
                gram(read(n, position), store.n_images, max_bytes=share, device=device)
                for n in names
            ]
            total = terms[0]
            for term in terms[1:]:
                total = add(total, term)
            yield total

    write_gram_file(out, store.layers, layers(), meta)


def _made_from(store: FeatureStore, tokens: str, without_cls: str) -> str:
    """Return the token kind that a Gram file is really made from, or ``NOTHING``."""
    if tokens != "cls" or store.model_has("cls"):
        return tokens
    if without_cls == "mean":
        logger.warning(f"{store.model} has no CLS token: the mean of its spatial tokens stands in")
        return "mean"
    logger.warning(f"{store.model} has no CLS token: left out")
    return NOTHING
