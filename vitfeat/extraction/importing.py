"""Stores of features from elsewhere: no pass, but sealed, checked and compared as any other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from vitfeat.data.index import Index
from vitfeat.data.vectors import Vectors
from vitfeat.data.views import WholeView
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.store.finished import finished_store, tidy
from vitfeat.store.layout import plan_layout
from vitfeat.store.paths import Place
from vitfeat.store.provenance import IMPORTED
from vitfeat.store.writer import open_writer, write_manifest
from vitfeat.text import plural

logger = logging.getLogger(__name__)


def import_vectors(
    vectors: Vectors,
    index: Index,
    out: Place,
    model: str,
    *,
    replace: bool = False,
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write vectors as a store, in float32, and its manifest beside it.

    A vector is the one spatial token of a grid of one, so that it is the mean of the spatial tokens
    and all of them. Layers that are narrower than the widest are filled up with zeros, which change
    neither products nor distances. All is read and checked before anything is written.

    Parameters
    ----------
    vectors
        Of all images of the dataset, and maybe of others.
    index
        The dataset.
    out
        Where the store goes. An interrupted one is gone on with, a finished one kept.
    model
        What the features are called.
    replace
        Whether a store of other features is replaced.
    on_images
        Called with the number of images that were just written.

    Returns
    -------
    dict
        The manifest.
    """
    rows = vectors.rows_of(index)
    names = [*vectors.layers]
    numbers = [int(name) for name in names] if vectors.is_numbered else list(range(len(names)))
    geometry = Geometry(
        layers=tuple(numbers),
        width=vectors.width,
        heads=0,
        grid=(1, 1),
        has_cls=False,
        n_registers=0,
        has_branches=False,
    )
    request = {
        "model": {
            "source": IMPORTED,
            "name": model,
            **({} if vectors.is_numbered else {"layer_names": names}),
        },
        "data": {"fingerprint": index.fingerprint, "n_images": len(index)},
        "features": {"sha256": vectors.digest(rows)},
        "view": WholeView().describe(),
        "precision": IMPORTED,
        "dtype": "float32",
        "taps": ["spatial"],
        "layers": numbers,
    }
    sealed, line = finished_store(out, request, replace)
    if line:
        logger.info(line)
    if sealed is not None:
        tidy(out)
    else:
        layout = plan_layout(geometry, ("spatial",), len(index), "float32")
        known = Rows(index.image_id, index.label, index.classes, index.skipped)
        notes = [*index.notes, *_notes(vectors, index)]
        for note in notes:
            logger.info(note)
        with open_writer(
            *(out, layout, geometry, known, request, model),
            weights={"file": vectors.where},
            notes=notes,
            replace=replace,
        ) as writer:
            assert writer is not None, "nothing else is said to be finished"
            for block in writer.missing_blocks():
                some = layout.rows(block)
                values = np.zeros((len(some), len(names), 1, 1, geometry.width), np.float32)
                for place, name in enumerate(names):
                    part = vectors.read(name, rows[some.start : some.stop])
                    values[:, place, 0, 0, : part.shape[1]] = part
                writer.write_block(block, {"spatial": values}, forward_images=0)
                on_images(len(some))
            sealed = writer.seal()
    write_manifest(out, sealed)
    return sealed


def _notes(vectors: Vectors, index: Index) -> list[str]:
    widths = {name: int(array.shape[1]) for name, array in vectors.layers.items()}
    notes = []
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{name} {width}" for name, width in widths.items())
        notes.append(f"channels, behind which zeros stand up to {vectors.width}: {shown}")
    if vectors.ids is not None and (others := len(vectors.ids) - len(index)):
        notes.append(f"vectors of {plural(others, 'image')} that the dataset has not: left out")
    return notes
