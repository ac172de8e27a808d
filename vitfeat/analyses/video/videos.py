"""Videos of a dataset as label propagation takes them: frames in a store, and their masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from vitfeat.analyses.video.soft_masks import FirstLabels, Mask, box_of, first_labels, tokens_inside
from vitfeat.data.annotations import FrameRow
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.masks import VOID, objects_in, read_mask
from vitfeat.errors import DataError
from vitfeat.numerics.coverage import Box
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural

logger = logging.getLogger(__name__)


Tokens = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of one sequence."""

    name: str
    rows: tuple[int, ...]  # of the frames in the store and the index, in the order of time
    stems: tuple[str, ...]
    size: tuple[int, int]  # height and width of every frame
    tokens: Tokens  # rows and columns of the token grid that show something of the frame
    box: Box  # their rectangle, in pixels of the frame
    given: Mask  # uint8 (height, width): the objects of the first frame
    first: FirstLabels  # the same as labels of tokens
    scored: tuple[int, ...]  # numbers of the objects that are scored
    # Masks of all frames as they are annotated; None where frames beside the first have none.
    truth: tuple[Mask, ...] | None

    @property
    def objects(self) -> list[int]:
        """Numbers of the objects that the first frame holds."""
        return list(objects_in(self.given))

    @property
    def is_scored(self) -> bool:
        """Whether it can be scored: first and last frame never are."""
        return self.truth is not None and len(self.rows) > 2


def videos(
    store: FeatureStore,
    index: Index,
    frames: Sequence[FrameRow],
    root: Path,
    objects: str = "first_mask",
) -> Iterator[Video]:
    """Read the videos of a table of frames, one at a time.

    Those whose first mask holds no object are left out, which the log says; and it says which
    objects are too small for the token grid, and which numbers are scored or not against what one
    may expect. ``objects`` is the setting of that name.
    """
    places = {image_id: row for row, image_id in enumerate(index.image_id)}
    for name, group in groupby(frames, key=lambda frame: frame.sequence):
        video = _video(store, index, places, name, list(group), root, objects)
        if not video.scored:
            logger.warning(f"sequence {printable(name)}: its first mask holds no object: left out")
            continue
        _note_scored(video)
        _note_small(video)
        yield video


def _video(
    store: FeatureStore,
    index: Index,
    places: dict[str, int],
    name: str,
    frames: list[FrameRow],
    root: Path,
    objects: str,
) -> Video:
    for frame in frames:
        if frame.image_id not in places:
            raise DataError(
                f"frame {printable(frame.image_id)} of the table of frames is not in the index of "
                "its dataset; write the table anew (vitfeat annotations)"
            )
    rows = tuple(places[frame.image_id] for frame in frames)
    sizes = {(int(index.height[row]), int(index.width[row])) for row in rows}
    if len(sizes) > 1:
        found = " and ".join(f"{width} x {height}" for height, width in sorted(sizes)[:2])
        raise DataError(
            f"sequence {printable(name)}: frames of different sizes, {found} pixels; all frames of "
            "a sequence must have one"
        )
    (size,) = sizes
    if not frames[0].mask:
        raise DataError(
            f"sequence {printable(name)}: no mask of its first frame in the table of frames; put "
            "it into the dataset's Annotations, and write the table anew (vitfeat annotations)"
        )
    annotated = all(frame.mask for frame in frames)
    masks = tuple(
        read_mask(root / frame.mask, size, frame.mask)
        for frame in (frames if annotated else frames[:1])
    )
    present = objects_in(masks[0])
    highest = max(present, default=0)
    height, width = size
    rows_of_grid, columns_of_grid = (int(side) for side in store.grid_shapes[rows[0]])
    grid = (rows_of_grid, columns_of_grid)
    whole = store.view.box(width, height)
    tokens = tokens_inside(whole, size, grid)
    box = box_of(whole, grid, tokens)
    # What is cut off of a grid is padding, which must never be matched.
    kept = (tokens[0].stop - tokens[0].start, tokens[1].stop - tokens[1].start)
    return Video(
        name=name,
        rows=rows,
        stems=tuple(PurePosixPath(frame.image_id).stem for frame in frames),
        size=size,
        tokens=tokens,
        box=box,
        given=np.where(masks[0] > highest, np.uint8(0), masks[0]),
        first=first_labels(masks[0], highest, box, kept),
        scored=present if objects == "first_mask" else tuple(range(1, highest + 1)),
        truth=masks if annotated else None,
    )


def _note_scored(video: Video) -> None:
    """Say which numbers one may expect to be scored and are not, or the other way round."""
    where = f"sequence {printable(video.name)}"
    absent = [number for number in range(1, max(video.objects)) if number not in video.objects]
    if absent:
        numbers = ", ".join(map(str, absent))
        done = "scored" if absent[0] in video.scored else "not scored"
        logger.warning(
            f"{where}: {numbers} of its objects without a pixel in the first mask: {done}"
        )
    later = set().union(*(objects_in(mask) for mask in video.truth or ())).difference(video.scored)
    if later.difference(absent):
        numbers = ", ".join(map(str, sorted(later.difference(absent))))
        logger.warning(f"{where}: objects that come after its first mask, not scored: {numbers}")
    if any((mask == VOID).any() for mask in video.truth or (video.given,)):
        logger.warning(f"{where}: masks with pixels of 255 (void), which count as background")


def _note_small(video: Video) -> None:
    where = f"sequence {printable(video.name)}"
    first = video.first
    for number in first.lifted:
        if number not in first.lost:
            pixels = plural(int((video.given == number).sum()), "pixel")
            logger.warning(
                f"{where}: object {number} ({pixels}) has the largest share of no token: its "
                "shares are raised so that it can be followed"
            )
    for number in first.lost:
        seen = first.labels[..., number].any()
        why = "others fill its tokens" if seen else "the view does not show it"
        logger.warning(f"{where}: object {number} cannot be followed: {why}")
