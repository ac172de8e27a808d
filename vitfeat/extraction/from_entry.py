"""From the entry of a model to a sealed store with its manifest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from vitfeat.data.annotations import RegionRow
from vitfeat.data.index import Index
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.store.paths import Place, set_aside
from vitfeat.store.writer import is_manifest, write_manifest

Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]
"""Of a number of images and what they go through: gives what takes how many were just done."""


def extract_from_entry(
    entry: ModelEntry,
    index: Index,
    root: Path,
    out: Place,
    settings: Settings,
    *,
    weights_folder: Path,
    keep: Collection[str] | None = None,
    annotated: Sequence[RegionRow] | None = None,
    progress: Progress,
) -> dict[str, Any] | None:
    """Load a model, push all images through it, and write the store and its manifest.

    Other arguments are those of :func:`vitfeat.extraction.run.extract`. Weights that are absent are
    fetched. Taps that are not to ``keep`` go after use; None keeps all. Returns the manifest, or
    None where the job has only a part of the store to fill.
    """
    backbone = load_backbone(entry, folder=weights_folder)
    with ExitStack() as stack:
        reports: list[Callable[[int], None]] = []
        sealed = extract(
            backbone,
            index,
            root,
            out,
            settings,
            annotated=annotated,
            on_total=lambda total: reports.append(stack.enter_context(progress(total, entry.id))),
            on_images=lambda n: reports[-1](n),
        )
    if sealed is None:
        return None
    if keep is not None and isinstance(out, Path):
        set_aside(out, keep)
    # Beside the store always: readers hold the two together. What was repaired is as it was, and so
    # is what was made of it: with a new date a workflow would make all of it anew.
    if not (settings.repair and is_manifest(out, sealed)):
        write_manifest(out, sealed)
    return sealed
