"""A figure of what a model's heads attend to most in some images, beside the annotated objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.analyses.attention_maps.files import caption
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.saliency.compute import chance_iou, iou, kept_tokens, merged
from vitfeat.analyses.saliency.figures import (
    Kept,
    MaskRow,
    SalientImage,
    figure,
    nothing_figure,
    table,
)
from vitfeat.analyses.saliency.foreground import Foregrounds
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.data.annotations import RegionRow, read_annotations
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
from vitfeat.errors import AnalysisError
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.queries import QUERIES, query_rows, usable_queries
from vitfeat.jobs.reading import index_of, one_position, shared_entries
from vitfeat.store.limits import spread
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.text import nearest, plural


def write_saliency_masks(
    store_path: Path,
    index_path: Path,
    regions_path: Path,
    root: Path,
    table_path: Path,
    out: Path,
    settings: SaliencySettings,
    *,
    layer: str | int = "last",
    label: str = "",
) -> None:
    """Draw the tokens that the best head and all heads merged keep of some images.

    The table of the scores says which head is the best. Images are ``settings.images``, spread over
    those with a foreground, or those ids in their order. Of a model that has none of the queries
    the figure says so.
    """
    store = open_store(store_path)
    index = index_of(store, index_path)
    kinds = usable_queries(store, "saliency", settings.queries)
    position = one_position(store, layer)
    number = store.layers[position]
    title, note = label or store.model, f"{store_path.parent.name}, layer {number}"
    if not kinds:
        save_with_numbers(nothing_figure(title=title, note=note), out, MaskRow, [])
        return
    regions = read_annotations(regions_path, RegionRow)
    truth = Foregrounds(regions, index, store.view, store.grid, settings.masks)
    rows, entries = shared_entries(store, [QUERIES[query] for query in kinds])
    chosen = _chosen(store, truth, rows, settings.images)
    scored = read_scores(table_path)
    heads = {query: _best_head(scored, store, query, number, table_path) for query in kinds}
    shown = []
    for place in chosen:
        kept = []
        for query in kinds:
            own = entries[QUERIES[query]]
            attention = query_rows(store, query, position, place, place + 1, own)[0]
            kept += _kept(
                query, heads[query], attention, truth.tokens(int(rows[place])), settings.mass
            )
        shown.append(_seen(store, index, root, truth, int(rows[place]), kept))
    drawn = figure(
        shown,
        title=title,
        note=f"{note}, {len(shown)} of {plural(store.n_images, 'image')}",
        mass=settings.mass,
        paper=settings.masks == "paper",
    )
    save_with_numbers(drawn, out, MaskRow, table(shown, number))


def _chosen(
    store: FeatureStore,
    truth: Foregrounds,
    rows: NDArray[np.int64],
    images: int | Sequence[str],
) -> list[int]:
    """Return where the images to show stand among `rows`."""
    if not isinstance(images, int):
        held = {store.image_ids[row]: place for place, row in enumerate(rows)}
        for name in images:
            if name not in held:
                raise AnalysisError(
                    f"{store.path}: no attention of the image {name!r}{nearest(name, held)} in "
                    f"this store; it has {plural(len(held), 'image')}, the first is "
                    f"{next(iter(held))!r}"
                )
            if not truth.tokens(int(rows[held[name]])).any():
                raise AnalysisError(
                    f"image {name!r}: no token of it is foreground, so that there is nothing to "
                    "compare with; take another (analyses.saliency.images)"
                )
        return [held[name] for name in images]
    places: list[int] = []
    # Masks of few images are decoded: each wanted one, or the next that has a foreground.
    for start in spread(min(images, len(rows)), len(rows)):
        following = [*range(start, len(rows)), *range(start)]
        free = (place for place in following if place not in places)
        place = next((p for p in free if truth.tokens(int(rows[p])).any()), None)
        if place is None:
            break
        places.append(place)
    if not places:
        raise AnalysisError(
            f"{store.path}: none of {plural(len(rows), 'image')} has a token of foreground; check "
            "the dataset's annotations"
        )
    return sorted(places)


def _best_head(
    scored: Sequence[ScoreRow], store: FeatureStore, query: str, layer: int, path: Path
) -> int:
    """Return the best head of a layer by the table; the first of equal ones."""
    own = [
        row
        for row in scored
        if (row.task, row.model, row.layer) == ("saliency", store.model, layer)
        and (row.features, row.variant, row.score) == (f"attn_{query}", "head", "iou")
    ]
    if not own or len(own) != store[QUERIES[query]].shape[2]:
        raise AnalysisError(
            f"{path} has not the heads of {store.model}, layer {layer}, query {query}; compute it "
            "anew (vitfeat run saliency)"
        )
    return int(max(own, key=lambda row: (row.value, -int(row.group))).group)


def _kept(
    query: str,
    head: int,
    attention: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    mass: float,
) -> list[Kept]:
    """Return what the best head and all heads merged keep, from attention (head, key)."""
    kept = []
    for number, row in ((head, attention[head]), (None, merged(attention))):
        tokens = kept_tokens(row, mass).reshape(foreground.shape)
        value = float(iou(tokens.ravel(), foreground.ravel()))
        n_kept, n_foreground = (np.array([part.sum()]) for part in (tokens, foreground))
        by_chance = float(chance_iou(n_kept, n_foreground, foreground.size)[0])
        kept.append(Kept(query, number, tokens, value, by_chance))
    return kept


def _seen(
    store: FeatureStore,
    index: Index,
    root: Path,
    truth: Foregrounds,
    row: int,
    kept: Sequence[Kept],
) -> SalientImage:
    mask = truth.mask(row)
    assert mask is not None
    # The view itself shows where the mask is in what the model saw.
    shown = store.view(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))
    name = store.image_ids[row]
    return SalientImage(
        name,
        caption(name),
        view_of(index.row(row), root, store.view),
        shown[..., 0] >= 128,
        truth.tokens(row),
        tuple(kept),
    )
