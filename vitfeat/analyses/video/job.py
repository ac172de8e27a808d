"""Objects of a video's first frame followed through the others, with every layer's features."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.analyses.video import SCORING
from vitfeat.analyses.video.figures import StripRow, chosen_frames, frames_figure
from vitfeat.analyses.video.propagation import propagate
from vitfeat.analyses.video.segmentation_scores import SequenceScores, score_sequence, summary
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.analyses.video.soft_masks import Mask, to_mask
from vitfeat.analyses.video.videos import Video, videos
from vitfeat.data.annotations import FrameRow, read_annotations
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.indexed import rgb_of
from vitfeat.data.masks import write_mask
from vitfeat.errors import AnalysisError
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.reading import check_tokens, index_of
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, image_tokens
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)

_LAYER_FOLDER = re.compile(r"\d{2,}")

N_SEQUENCES = 5
N_FRAMES = 6
"""At most so many sequences, and frames of each, are drawn."""


class DrawnFrame(NamedTuple):
    """A frame of the figure; ``jf_mean`` is of its sequence's objects, None if it is not scored."""

    sequence: str
    frame: int
    image_id: str
    jf_mean: float | None


class Choice:
    """The sequences of a table of frames that are drawn: at even distances.

    In the place of one that is not followed, for it has no object, stands the next that is.
    """

    def __init__(self, frames: Sequence[FrameRow]) -> None:
        self._names = list(dict.fromkeys(frame.sequence for frame in frames))
        self._places = list(chosen_frames(len(self._names), N_SEQUENCES))

    def takes(self, name: str) -> bool:
        """Tell whether a sequence is drawn; of those that are followed, each in its order."""
        if not self._places or self._names.index(name) < self._places[0]:
            return False
        self._places.pop(0)
        return True


@dataclass(frozen=True, eq=False)
class Shown:
    """The frames of a video that are drawn, kept while they pass, by their number."""

    video: Video
    masks: dict[int, Mask] = field(default_factory=dict)

    def keep(self, masks: Iterator[Mask]) -> Iterator[Mask]:
        """Yield the masks of all frames, and keep those that are drawn."""
        chosen = set(chosen_frames(len(self.video.rows), N_FRAMES))
        for number, mask in enumerate(masks):
            if number in chosen:
                self.masks[number] = mask
            yield mask

    def drawn(
        self, index: Index, root: Path, scores: SequenceScores | None
    ) -> tuple[StripRow, list[DrawnFrame]]:
        """Return what is drawn, with the frames' own pixels, and which frames these are."""
        video, numbers = self.video, sorted(self.masks)
        mean, caption = None, printable(video.name)
        if scores is not None:
            mean = float(np.mean([r.value for r in scores.records() if r.score == "jf_mean"]))
            caption = f"{caption}: J&F {mean:.3f}"
        rows = [video.rows[number] for number in numbers]
        strip = StripRow(
            caption=caption,
            numbers=numbers,
            frames=[np.asarray(rgb_of(index.row(row), root)) for row in rows],
            predicted=[self.masks[number] for number in numbers],
            truth=[None if video.truth is None else video.truth[number] for number in numbers],
        )
        frames = [
            DrawnFrame(video.name, number, index.image_id[row], mean)
            for number, row in zip(numbers, rows, strict=True)
        ]
        return strip, frames


@dataclass(frozen=True)
class Followed:
    """Scores of a video's objects, if any, and those with a pixel in some frame after the first."""

    scores: SequenceScores | None
    found: set[int]


def write_video(
    store_path: Path,
    frames_path: Path,
    index_path: Path,
    root: Path,
    out: Path,
    figure: Path | None,
    mask_folder: Path | None,
    settings: VideoSettings,
    *,
    label: str = "",
    threads: int = 1,
) -> None:
    """Follow the objects of every sequence with each layer's features; write scores and masks.

    The table of ScoreRow has no rows where no sequence has masks of all frames. Masks go to
    ``{mask_folder}/{layer}/{sequence}/{frame}.png``, and those of an earlier run are removed.
    ``threads`` layers are worked on side by side, each with the features of the context in memory.
    """
    store = open_store(store_path)
    index = index_of(store, index_path)
    check_tokens(store, "videos are followed by")
    frames = read_annotations(frames_path, FrameRow)
    positions = store.layer_positions("all")
    some = mask_folder is not None and settings.masks != "none"
    written = store.layer_positions(settings.masks) if some else []
    drawn = Choice(frames) if figure is not None else None
    strip: list[StripRow] = []
    frames_drawn: list[DrawnFrame] = []
    if mask_folder is not None:
        remove_masks(mask_folder)
        mask_folder.mkdir(parents=True, exist_ok=True)
    scores: list[list[tuple[str, SequenceScores]]] = [[] for _ in positions]
    followed = unscored = 0
    # Products are small: BLAS' own threads would wait for each other more than they work.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for video in videos(store, index, frames, root, settings.objects):
            shown = Shown(video) if drawn is not None and drawn.takes(video.name) else None
            followed += 1

            def follow(
                position: int, video: Video = video, shown: Shown | None = shown
            ) -> Followed:
                found = masks_of(store, video, position, settings)
                if mask_folder is not None and position in written:
                    layer = mask_folder / f"{store.layers[position]:02d}" / video.name
                    found = _written(found, [layer / f"{stem}.png" for stem in video.stems])
                if shown is not None and position == positions[-1]:
                    found = shown.keep(found)
                return _followed(found, video)

            wanted = positions
            if not video.is_scored:
                unscored += 1
                wanted = sorted({*written, *(positions[-1:] if shown else ())})
            results = dict(zip(wanted, pool.map(follow, wanted), strict=True))
            for position, result in results.items():
                if result.scores is not None:
                    scores[position].append((video.name, result.scores))
            if shown is not None:
                last = results[positions[-1]].scores
                shown_row, shown_frames = shown.drawn(index, root, last)
                strip.append(shown_row)
                frames_drawn += shown_frames
            layers = {store.layers[position]: result for position, result in results.items()}
            _note_vanished(video, layers)
    if not followed:
        raise AnalysisError(
            f"{store_path}: no sequence of {frames_path} has an object in its first mask, so there "
            "is nothing to follow; check the dataset's masks"
        )
    if unscored:
        logger.warning(
            f"{store_path.parent.name}: {plural(unscored, 'sequence')} without masks of all "
            "frames, or of fewer than three frames: not scored"
        )
    rows: list[ScoreRow] = []
    for position, found in zip(positions, scores, strict=True):
        row = score_rows("video", store, layer=store.layers[position], features="spatial")
        rows += _table(row, found)
    write_table(out, ScoreRow, rows)
    if figure is not None:
        title = f"{SCORING.title}: {label or store.model}"
        count = plural(len({frame.sequence for frame in frames}), "sequence")
        note = (
            f"{store_path.parent.name}, layer {store.layers[-1]}, {len(strip)} of {count}. Areas "
            "and their numbers: predicted from the objects of the first frame"
        )
        drawing = frames_figure(strip, title=title, note=note)
        save_with_numbers(drawing, figure, DrawnFrame, frames_drawn)


def masks_of(
    store: FeatureStore, video: Video, position: int, settings: VideoSettings
) -> Iterator[Mask]:
    """Yield the mask of every frame of a video, the given first one too, by one layer."""
    yield video.given
    frames = (image_tokens(store, row, position)[video.tokens] for row in video.rows)
    try:
        for labels in propagate(frames, video.first.labels, settings):
            yield to_mask(labels, video.box, video.size, settings.normalise)
    except AnalysisError as error:
        raise AnalysisError(
            f"{store.path}: sequence {printable(video.name)}, layer {store.layers[position]}: "
            f"{error}"
        ) from error


def _table(
    row: Callable[..., ScoreRow], scores: Sequence[tuple[str, SequenceScores]]
) -> Iterator[ScoreRow]:
    """Yield the rows of one layer: the global scores, then those of every object."""
    if not scores:
        return
    n_objects = sum(one.n_objects for _, one in scores)
    for score, value in summary([one for _, one in scores]).items():
        yield row(score=score, n=n_objects, value=value)
    for name, one in scores:
        for record in one.records():
            group = f"{name}/{record.number}"
            yield row(score=record.score, group=group, n=record.n, value=record.value)


def remove_masks(folder: Path) -> None:
    """Remove the masks of an earlier run below a folder, and nothing else.

    Those of layers or sequences that are no longer asked for would stand among new ones.
    """
    for layer in folder.glob("*"):
        if not _LAYER_FOLDER.fullmatch(layer.name) or not layer.is_dir():
            continue
        for sequence in [*layer.glob("*"), layer]:
            for path in sequence.glob("*.png"):
                path.unlink()
            if sequence.is_dir() and not any(sequence.iterdir()):
                sequence.rmdir()


def _written(masks: Iterator[Mask], paths: Sequence[Path]) -> Iterator[Mask]:
    for mask, path in zip(masks, paths, strict=True):
        write_mask(path, mask)
        yield mask


def _followed(masks: Iterator[Mask], video: Video) -> Followed:
    found: set[int] = set()

    def noted() -> Iterator[Mask]:
        for number, mask in enumerate(masks):
            if number:
                found.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
            yield mask

    if video.truth is not None and video.is_scored:
        return Followed(score_sequence(video.truth, noted(), video.scored), found)
    for _ in noted():
        pass
    return Followed(None, found)


def _note_vanished(video: Video, layers: Mapping[int, Followed]) -> None:
    for number in video.objects:
        gone = [layer for layer, one in layers.items() if number not in one.found]
        if gone and len(video.rows) > 1 and number not in video.first.lost:
            numbers = ", ".join(map(str, gone))
            which = "any layer" if len(gone) == len(layers) else f"layers {numbers}"
            logger.warning(
                f"sequence {printable(video.name)}: object {number} has no pixel after the first "
                f"frame with the features of {which}"
            )
