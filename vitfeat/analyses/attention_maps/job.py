"""Attention maps of chosen images of a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from vitfeat.analyses.attention.source import tokens_of
from vitfeat.analyses.attention_maps.compute import Position
from vitfeat.analyses.attention_maps.files import (
    caption,
    folder_name,
    remove_other_figures,
    remove_single_maps,
    usable_positions,
    write_grid,
    write_single_maps,
)
from vitfeat.analyses.attention_maps.grids import KINDS, ImageMaps, image_maps
from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
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
    """Push some images through a model into a store of them alone, and draw their attention maps.

    `root` is the folder of the dataset's images; the others are as in :func:`draw_attention_maps`.
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
    """Draw the attention maps of some images of a store, which may be of some images alone.

    Writes ``{kind}/{number}-{image}.png``, ``.pdf`` and ``.csv`` for every kind of grid and image,
    and with ``single_maps`` a folder an image below ``maps``. The index is the dataset's, `root`
    the folder of its images, `label` the model's name in titles where it is not its id.
    """
    store = open_store(store_path)
    if "attention" not in store:
        raise AnalysisError(
            f"{store_path}: no attention in this store (it holds {store.held}); "
            "extract the tap attention"
        )
    index = Index.read(index_path)
    n_images = len(index)
    # The store's images may be some of the dataset's alone.
    rows = {image: row for row, image in enumerate(index.image_id)}
    index = index.only([rows[image] for image in store.image_ids if image in rows])
    if index.fingerprint != store.image_fingerprint:
        raise other_images(index_path, store)
    chosen = usable_positions(settings.positions, tokens_of(store), store.model)
    layer = store.layer_positions(settings.layer)[0]
    every = [
        _maps_of(store, index, root, entry, chosen, settings.renormalised)
        for entry in entries_of(store, settings.images)
    ]
    folders = [folder_name(place, maps.image) for place, maps in enumerate(every)]
    for kind in KINDS:
        paths = [out / kind / f"{name}.png" for name in folders]
        for path, maps in zip(paths, every, strict=True):
            write_grid(
                path,
                kind,
                maps,
                settings,
                layer=store.layers[layer],
                layers=[store.layers[place] for place in store.layer_positions(settings.layers)],
                title=label or store.model,
                note=f"{store_path.parent.name}, one of {plural(n_images, 'image')}",
            )
        remove_other_figures(out / kind, paths)
    if settings.single_maps:
        remove_single_maps(out / "maps")
        count = sum(
            write_single_maps(out / "maps" / name, maps, settings)
            for name, maps in zip(folders, every, strict=True)
        )
        logger.info(f"{out / 'maps'}: {plural(count, 'map')}")


def entries_of(store: FeatureStore, images: int | Sequence[str]) -> list[int]:
    """Return where the attention of the wanted images stands in its array."""
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


def _maps_of(
    store: FeatureStore,
    index: Index,
    root: Path,
    entry: int,
    chosen: Sequence[Position],
    renormalised: bool,
) -> ImageMaps:
    row = int(store.rows("attention")[entry])
    image = store.image_ids[row]

    def read(place: int) -> NDArray[Any]:
        layer: NDArray[Any] = read_rows(store, "attention", entry, entry + 1, place)[0]
        return layer

    return image_maps(
        image,
        read,
        store.layers,
        tokens_of(store),
        chosen,
        picture=view_of(index.row(row), root, store.view),
        caption=caption(image, store.classes.get(int(store.labels[row]), "")),
        renormalised=renormalised,
    )
