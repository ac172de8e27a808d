"""The embedded dataset in the layout davis: digits that move over dark ground.

Each sequence has its own difficulty: objects that cross and hide each other, one that grows from
less than a token, one that leaves the frame.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.masks import write_mask
from vitfeat.demo import digits
from vitfeat.demo.datasets.annotated import save

N_FRAMES = 8

_EDGE = 0.4
"""Share of its brightest ink from which a pixel belongs to a digit."""

_TEXTURE = (6, 34)
"""Grey values of the ground."""

_GRAIN = 9
"""Pixels between the values that the ground is smoothed from."""


class Pose(NamedTuple):
    """Centre and side of a digit, in pixels."""

    x: float
    y: float
    side: float


@dataclass(frozen=True)
class Mover:
    """A digit, as bright as ``ink``, on a straight way between two poses."""

    digit: int
    ink: int
    start: Pose
    end: Pose

    def pose(self, frame: int) -> Pose:
        """Return the pose in a frame."""
        share = frame / (N_FRAMES - 1)
        pairs = zip(self.start, self.end, strict=True)
        return Pose(*(a + share * (b - a) for a, b in pairs))


@dataclass(frozen=True)
class Sequence:
    """A video: its size in pixels, and its objects 1 to n from back to front."""

    width: int
    height: int
    movers: tuple[Mover, ...]


SEQUENCES: Mapping[str, Sequence] = {
    "crossing": Sequence(
        80,
        48,
        (
            Mover(3, 225, Pose(18, 25, 30), Pose(60, 22, 30)),
            Mover(0, 255, Pose(62, 20, 28), Pose(24, 26, 28)),
            Mover(1, 190, Pose(41, 37, 18), Pose(41, 39, 18)),
        ),
    ),
    "growing": Sequence(
        72,
        56,
        (
            Mover(6, 220, Pose(52, 30, 30), Pose(54, 26, 30)),
            Mover(1, 255, Pose(14, 14, 4), Pose(22, 30, 32)),
        ),
    ),
    "leaving": Sequence(
        48,
        64,
        (
            Mover(2, 235, Pose(24, 44, 30), Pose(22, 40, 34)),
            Mover(7, 255, Pose(22, 16, 28), Pose(64, 12, 28)),
        ),
    ),
    "passing": Sequence(64, 48, (Mover(4, 255, Pose(18, 24, 34), Pose(46, 26, 34)),)),
}

SPLITS = {"train": ("passing",), "val": ("crossing", "growing", "leaving")}


def write(root: Path) -> None:
    """Write the lists of sequences, the frames as JPEG and their masks."""
    sets = root / "ImageSets" / "2017"
    sets.mkdir(parents=True, exist_ok=True)
    for split, names in SPLITS.items():
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    for seed, (name, sequence) in enumerate(SEQUENCES.items()):
        frames = root / "JPEGImages" / "480p" / name
        ground = _ground(sequence, seed)
        for number in range(N_FRAMES):
            grey, mask = _draw(sequence, ground, number)
            save(grey, frames / f"{number:05d}.jpg")
            write_mask(root / "Annotations" / "480p" / name / f"{number:05d}.png", mask)


def _ground(sequence: Sequence, seed: int) -> NDArray[np.float64]:
    """Make a dark ground of smooth noise, (height, width), that stays while digits move."""
    rows, columns = sequence.height // _GRAIN + 2, sequence.width // _GRAIN + 2
    coarse = np.random.default_rng(seed).integers(*_TEXTURE, (rows, columns), dtype=np.uint8)
    size = (sequence.width, sequence.height)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float64)


@functools.cache
def _shapes() -> list[NDArray[np.uint8]]:
    """Return the first test image of every digit, each (32, 32), grey."""
    images, labels = digits.load("test")
    return [images[labels == digit][0, :, :, 0] for digit in range(10)]


def _draw(
    sequence: Sequence, ground: NDArray[np.float64], frame: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a frame's grey picture and its mask, both (height, width)."""
    grey, mask = ground.copy(), np.zeros(ground.shape, dtype=np.uint8)
    for number, mover in enumerate(sequence.movers, 1):
        share = _ink(mover.digit, mover.pose(frame), ground.shape)
        grey += share * (mover.ink - grey)
        mask[share >= _EDGE] = number
    return np.rint(grey).astype(np.uint8), mask


def _ink(digit: int, pose: Pose, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return how much of every pixel is a digit's, from 0 to 1; what is outside is cut off."""
    side = round(pose.side)
    source = Image.fromarray(_shapes()[digit])
    small = np.asarray(source.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    top, left = round(pose.y - side / 2), round(pose.x - side / 2)
    whole = np.zeros((shape[0] + 2 * side, shape[1] + 2 * side))
    # Beyond the margin nothing would be seen anyway.
    top, left = min(max(top, -side), shape[0]), min(max(left, -side), shape[1])
    whole[top + side : top + 2 * side, left + side : left + 2 * side] = small / small.max()
    return whole[side : side + shape[0], side : side + shape[1]]
