r"""J and F: how well predicted masks of objects follow a video, as DAVIS-2017 scores them.

A mask is a picture of object numbers: 0 is background. In the truth, 255 (void) and numbers that
are not scored count as background too: the official semi-supervised evaluation leaves out no
pixels, and follows only objects of the first frame. Of every object and frame there are

* J, the region similarity, and
* F, the boundary measure,

over the frames of a sequence without its first, whose mask is given, and its last.

References
----------
F. Perazzi, J. Pont-Tuset, B. McWilliams, L. Van Gool, M. Gross, A. Sorkine-Hornung: A benchmark
dataset and evaluation methodology for video object segmentation. CVPR 2016.
J. Pont-Tuset, F. Perazzi, S. Caelles, P. Arbeláez, A. Sorkine-Hornung, L. Van Gool: The 2017 DAVIS
challenge on video object segmentation. arXiv:1704.00675.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.text import plural

Mask = NDArray[np.uint8]
Binary = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = tuple[NDArray[np.int64], NDArray[np.int64]]

TOLERANCE = 0.008
"""How far outlines may be apart, as a share of the frame's diagonal."""

RECALL = 0.5
"""Frames above this score are found."""


class Statistics(NamedTuple):
    """Mean over frames, share of frames above :data:`RECALL`, and what is lost until the end."""

    mean: float
    recall: float
    decay: float


SCORES = ("jf_mean", *(f"{letter}_{name}" for letter in "jf" for name in Statistics._fields))
"""Names of the global scores, in the official order."""


class Record(NamedTuple):
    """A score of an object over ``n`` frames; ``score`` is one of :data:`SCORES`."""

    score: str
    number: int
    n: int
    value: float


@dataclass(frozen=True, eq=False)
class SequenceScores:
    """Scores of a sequence."""

    # j, f: float64 (object, frame): in the frames without the first and the last.
    j: Floats
    f: Floats
    numbers: tuple[int, ...]

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return len(self.j)

    @property
    def n_frames(self) -> int:
        """Number of scored frames: two fewer than the sequence has."""
        return int(self.j.shape[1])

    def records(self) -> Iterator[Record]:
        """Yield all scores of every object in turn, in the order of :data:`SCORES`."""
        for place, number in enumerate(self.numbers):
            of = {"j": statistics(self.j[place]), "f": statistics(self.f[place])}
            both = (of["j"].mean + of["f"].mean) / 2
            yield Record("jf_mean", number, self.n_frames, both)
            for letter, found in of.items():
                for name, value in found._asdict().items():
                    yield Record(f"{letter}_{name}", number, self.n_frames, value)


def score_sequence(
    truth: Iterable[Mask], predicted: Iterable[Mask], objects: Sequence[int]
) -> SequenceScores:
    """Score the predicted masks of a sequence, uint8 (H, W) of every frame, read one at a time.

    The first and the last frame must be there, too.
    """
    if not objects:
        raise AnalysisError("a sequence is scored by its objects: the first mask holds none")
    scored = [
        _frame(number, true, guess, objects)
        for number, true, guess in _between(_paired(truth, predicted))
    ]
    if not scored:
        raise AnalysisError(
            "a sequence is scored without its first and its last frame: it needs three or more"
        )
    values = np.array(scored)
    return SequenceScores(values[:, :, 0].T.copy(), values[:, :, 1].T.copy(), tuple(objects))


def summary(scores: Sequence[SequenceScores]) -> dict[str, float]:
    """Return the global scores of a dataset by their names, in the order of :data:`SCORES`.

    Each is the mean over all objects of all sequences: long sequences count no more than short
    ones. ``jf_mean`` is the mean of ``j_mean`` and ``f_mean``.
    """
    if not scores:
        raise AnalysisError("no sequence has scores: none has masks in all of its frames")
    means: dict[str, float] = {}
    for letter in "jf":
        every = [statistics(row) for one in scores for row in getattr(one, letter)]
        for name, values in zip(Statistics._fields, zip(*every, strict=True), strict=True):
            means[f"{letter}_{name}"] = float(np.mean(values))
    return {"jf_mean": (means["j_mean"] + means["f_mean"]) / 2, **means}


def statistics(values: Floats) -> Statistics:
    """Summarise the scores of an object's frames, in the order of time; see :func:`quarters`."""
    first, *_, last = quarters(len(values))
    return Statistics(
        mean=float(np.mean(values)),
        recall=float(np.mean(values > RECALL)),
        decay=float(np.mean(values[first]) - np.mean(values[last])),
    )


def quarters(n: int) -> list[slice]:
    r"""Cut n frames into four parts as the official evaluation does.

    With :math:`t_i = 1 + i (n - 1) / 4` rounded to whole numbers, halves upwards, part i has the
    frames :math:`t_i` to :math:`t_{i+1}`, counted from 1, both ends included: a frame at the border
    of two parts is in both.
    """
    # floor((2 a + b) / 2 b) rounds a / b with halves upwards, in whole numbers.
    ends = [(i * (n - 1) + 2) // 4 for i in range(5)]
    return [slice(start, end + 1) for start, end in pairwise(ends)]


def region_similarity(truth: Binary, predicted: Binary) -> float:
    r"""J: intersection over union, :math:`|M \cap \hat M| / |M \cup \hat M|`; 1 of two empty masks.

    References
    ----------
    P. Jaccard: Étude comparative de la distribution florale dans une portion des Alpes et des Jura.
    Bulletin de la Société Vaudoise des Sciences Naturelles 37, 1901.
    """
    both = int(np.count_nonzero(truth & predicted))
    union = int(np.count_nonzero(truth)) + int(np.count_nonzero(predicted)) - both
    return both / union if union else 1.0


def _paired(truth: Iterable[Mask], predicted: Iterable[Mask]) -> Iterator[tuple[Mask, Mask]]:
    pairs = zip_longest(truth, predicted)
    for number, (true, guess) in enumerate(pairs):
        if true is None or guess is None:
            fewer = "true" if true is None else "predicted"
            raise AnalysisError(
                f"a sequence has {plural(number, f'{fewer} mask')} and more on the other side: "
                "every frame needs both"
            )
        yield true, guess


def _between(pairs: Iterator[tuple[Mask, Mask]]) -> Iterator[tuple[int, Mask, Mask]]:
    """Yield the frames that have one before and one behind, with their numbers from 0."""
    next(pairs, None)
    held = next(pairs, None)
    for number, pair in enumerate(pairs, 1):
        if held is not None:
            yield number, *held
        held = pair


def _frame(
    number: int, truth: Mask, predicted: Mask, objects: Sequence[int]
) -> list[tuple[float, float]]:
    """Return J and F of every object of a frame."""
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise AnalysisError(
            f"frame {number}: the predicted mask is of shape {predicted.shape}, the true one of "
            f"{truth.shape}; both must be (height, width) of the frame"
        )
    others = np.setdiff1d(predicted, [0, *objects])
    if others.size:
        raise AnalysisError(
            f"frame {number}: the predicted mask holds object {others[-1]}, but the objects of the "
            f"sequence are {', '.join(map(str, objects))}"
        )
    scored = []
    for one in objects:
        true, guess = truth == one, predicted == one
        scored.append((region_similarity(true, guess), boundary_measure(true, guess)))
    return scored


def tolerance(shape: tuple[int, int]) -> int:
    r"""Return how many pixels outlines may differ, :math:`\lceil 0.008 \sqrt{H^2 + W^2} \rceil`."""
    height, width = shape
    return math.ceil(TOLERANCE * math.sqrt(height * height + width * width))


def outline(mask: Binary) -> Binary:
    """Mark the pixels that differ from their neighbour on the right, below, or below that.

    What is beyond the last row or column is not compared; the last pixel is never marked. So the
    outline is half a pixel up and left of where the mask ends, and a mask that reaches the frame's
    edge has none there.

    References
    ----------
    The boundary map of D. Martin's segmentation benchmark (2003), which DAVIS uses.
    """
    marked = np.zeros(mask.shape, dtype=bool)
    right = mask[:, :-1] ^ mask[:, 1:]
    below = mask[:-1] ^ mask[1:]
    marked[:, :-1] = right
    marked[:-1] |= below
    marked[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return marked


def n_near(places: Places, marked: Binary, radius: int) -> int:
    """Count the places, rows and columns, that have a marked pixel within a disk around them.

    Pixels at a distance of the radius, between centres, are within.
    """
    # How many pixels are marked left of a column of a row says whether any is between two columns:
    # a disk is a few such spans, and only the places are looked at.
    before = np.zeros((marked.shape[0] + 2 * radius, marked.shape[1] + 2 * radius + 1), np.int32)
    inner = before[radius : radius + marked.shape[0], radius + 1 :]
    inner[:, : marked.shape[1]] = marked
    np.cumsum(inner, axis=1, out=inner)
    flat, pitch = before.reshape(-1), before.shape[1]
    start = places[0] * pitch + places[1] + radius
    near = np.zeros(len(start), dtype=bool)
    for down in range(2 * radius + 1):
        half = math.isqrt(radius * radius - (down - radius) ** 2)
        row = start + down * pitch
        near |= flat[row + half + 1] != flat[row - half]
    return int(near.sum())


def boundary_measure(truth: Binary, predicted: Binary) -> float:
    r"""F: harmonic mean of precision and recall of the outline.

    With :math:`B` and :math:`\hat B` the outlines of the true and of the predicted mask, and
    :math:`D_r` a dilation by the disk of radius :math:`r = \lceil 0.008 \sqrt{H^2 + W^2} \rceil`,

    .. math:: P = \frac{|\hat B \cap D_r(B)|}{|\hat B|}, \quad
        R = \frac{|B \cap D_r(\hat B)|}{|B|}, \quad F = \frac{2 P R}{P + R}.

    It is 1 where neither mask has an outline, 0 where one has none or P and R are both 0.

    References
    ----------
    D. Martin, C. Fowlkes, J. Malik: Learning to detect natural image boundaries using local
    brightness, color, and texture cues. PAMI 26, 2004; F. Perazzi et al.: A benchmark dataset and
    evaluation methodology for video object segmentation. CVPR 2016.
    """
    radius = tolerance((truth.shape[0], truth.shape[1]))
    # There is no outline beyond this: it is up to a pixel up and left of where a mask begins.
    part = _around(truth | predicted)
    true, guess = outline(truth[part]), outline(predicted[part])
    true_places, places = true.nonzero(), guess.nonzero()
    n_true, n_guess = len(true_places[0]), len(places[0])
    if not n_true or not n_guess:
        return float(n_true == n_guess)
    precision = n_near((places[0], places[1]), true, radius) / n_guess
    recall = n_near((true_places[0], true_places[1]), guess, radius) / n_true
    # In the order of the official arithmetic, so that the last digit is the same.
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _around(mask: Binary) -> tuple[slice, slice]:
    """Return the box of a mask and a pixel more on every side where the frame has one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return (
        slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2),
        slice(max(0, int(columns[0]) - 1), int(columns[-1]) + 2),
    )
