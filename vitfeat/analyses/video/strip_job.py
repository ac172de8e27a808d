"""What the figure of a model's videos shows: some frames of some sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitfeat.analyses.video.figures import StripRow, chosen_frames
from vitfeat.analyses.video.segmentation_scores import SequenceScores
from vitfeat.analyses.video.soft_masks import Mask
from vitfeat.analyses.video.videos import Video
from vitfeat.data.annotations import FrameRow
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.indexed import rgb_of

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
