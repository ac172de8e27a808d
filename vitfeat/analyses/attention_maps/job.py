"""Attention maps of chosen images of a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from vitfeat.analyses.attention.source import tokens_of
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import Position, positions
from vitfeat.analyses.attention_maps.files import (
    Seen,
    caption,
    folder_name,
    remove_other_figures,
    remove_single_maps,
    usable,
    write_grid,
    write_single_maps,
)
from vitfeat.analyses.attention_maps.grids import KINDS, image_maps
from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
from vitfeat.data.views import view_from
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import other_images
from vitfeat.store.limits import chosen_rows, spread
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, read_rows
from vitfeat.text import nearest, plural

logger = logging.getLogger(__name__)


class Push(Protocol):
    """Pushes images through the model of a job."""

    def __call__(
        self, index: Index, root: Path, store: Path, manifest: Path, taps: Sequence[str]
    ) -> None:
        """Write a store of what the taps give, and its manifest."""


def write_attention_maps(
    index_path: Path,
    root: Path,
    store_path: Path,
    manifest: Path,
    out: Path,
    settings: AttentionMapSettings,
    *,
    push: Push,
    label: str = "",
) -> None:
    """Push some images through a model, and draw their attention maps.

    Parameters
    ----------
    index_path, root
        The dataset's index, and the folder of its images.
    store_path, manifest
        The store to write, of these images alone, and its manifest.
    out, settings, label
        As :func:`draw_attention_maps` takes them.
    push
        Pushes images through the model.

    Raises
    ------
    VitfeatError
        As the extraction and :func:`draw_attention_maps`.
    """
    index = Index.read(index_path)
    chosen = index.only(chosen_rows(settings.images, index.image_id, "the chosen images"))
    push(chosen, root, store_path, manifest, tuple(settings.required_taps()))
    draw_attention_maps(store_path, index_path, root, out, settings, label=label)


def draw_attention_maps(
    store_path: Path,
    index_path: Path,
    root: Path,
    out: Path,
    settings: AttentionMapSettings,
    *,
    label: str = "",
) -> None:
    """Draw the attention maps of some images of a store.

    Writes ``{kind}/{number}-{image}.png``, ``.pdf`` and ``.csv`` for every kind of grid and image,
    and with ``single_maps`` a folder an image below ``maps``.

    Parameters
    ----------
    store_path
        A store with the tap ``attention``; it and its store may be of some images alone.
    index_path, root
        The dataset's index that the store was made from, and the folder of its images.
    out
        Folder to write to.
    settings
        Which images and maps are drawn, and how.
    label
        The model's name in titles; its id if not given.

    Raises
    ------
    AnalysisError, StoreError, DataError
        The store has no attention, or none of an image; the index or an image's file is another
        than the store's; a position, layer or head is not there.
    """
    store = open_store(store_path)
    if "attention" not in store:
        raise AnalysisError(
            f"{store_path}: no attention in this store (it holds {store.held}); "
            "extract the tap attention"
        )
    index = Index.read(index_path)
    n_images = len(index)
    index = _of_store(index, store, index_path)
    tokens = tokens_of(store)
    names = usable(settings.positions, tokens, store.model)
    chosen = positions(names, tokens)
    places = store.layer_positions(settings.layer)
    seen = [
        _seen(store, index, root, entry, tokens, chosen, settings.renormalised)
        for entry in entries_of(store, settings.images)
    ]
    shown = [store.layers[place] for place in store.layer_positions(settings.layers)]
    for kind in KINDS:
        paths = [
            out / kind / f"{folder_name(place, one.maps.image)}.png"
            for place, one in enumerate(seen)
        ]
        for path, one in zip(paths, seen, strict=True):
            write_grid(
                path,
                kind,
                one,
                settings,
                layer=store.layers[places[0]],
                layers=shown,
                title=label or store.model,
                note=f"{store_path.parent.name}, one of {plural(n_images, 'image')}",
            )
        remove_other_figures(out / kind, paths)
    if settings.single_maps:
        remove_single_maps(out / "maps")
        count = sum(
            write_single_maps(out / "maps" / folder_name(place, one.maps.image), one, settings)
            for place, one in enumerate(seen)
        )
        logger.info(f"{out / 'maps'}: {plural(count, 'map')}")


def _of_store(index: Index, store: FeatureStore, path: Path) -> Index:
    """Return the index of a store's images, which may be some of the dataset's alone.

    Raises
    ------
    AnalysisError
        Its images are others than those of the index.
    """
    rows = {image: row for row, image in enumerate(index.image_id)}
    own = index.only([rows[image] for image in store.image_ids if image in rows])
    if own.fingerprint != store.image_fingerprint:
        raise other_images(path, store)
    return own


def entries_of(store: FeatureStore, images: int | Sequence[str]) -> list[int]:
    """Return where the attention of the wanted images stands in its array.

    Raises
    ------
    AnalysisError
        The attention of an image is not stored.
    """
    rows = store.rows("attention").tolist()
    if isinstance(images, int):
        return list(spread(min(images, len(rows)), len(rows)))
    stored = {store.image_ids[row]: entry for entry, row in enumerate(rows)}
    for name in images:
        if name not in stored:
            raise AnalysisError(
                f"{store.path}: the attention of the image {name!r} is not stored"
                f"{nearest(name, stored)}; it is of {plural(len(stored), 'image')}, the first is "
                f"{next(iter(stored))!r}"
            )
    return [stored[name] for name in images]


def _seen(
    store: FeatureStore,
    index: Index,
    root: Path,
    entry: int,
    tokens: Tokens,
    chosen: Sequence[Position],
    renormalised: bool,
) -> Seen:
    row = int(store.rows("attention")[entry])
    image = store.image_ids[row]

    def read(place: int) -> NDArray[Any]:
        layer: NDArray[Any] = read_rows(store, "attention", entry, entry + 1, place)[0]
        return layer

    maps = image_maps(image, read, store.layers, tokens, chosen, renormalised=renormalised)
    view = view_from(store.attributes["request"]["view"])
    picture = view_of(index.row(row), root, view)
    return Seen(maps, picture, caption(image, store.classes.get(int(store.labels[row]), "")))
