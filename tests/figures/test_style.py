from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vitfeat.figures.style import FALLBACK_COLOURS, FAMILY_COLOURS, family_colour

# Machado, Oliveira & Fernandes 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
CORE = ("supervised", "clip", "dino", "moco", "mae", "beit", "random", "noise")


def linear(colour: str) -> np.ndarray:
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(light, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("families", "least"), [(CORE, 20), (tuple(FAMILY_COLOURS), 8)])
def test_families_can_be_told_apart(vision: str, families: tuple[str, ...], least: float) -> None:
    seen = {name: lab(VISION[vision] @ linear(FAMILY_COLOURS[name])) for name in families}
    for a, b in combinations(families, 2):
        assert np.linalg.norm(seen[a] - seen[b]) >= least, (a, b)


@pytest.mark.parametrize("colour", [*FAMILY_COLOURS.values(), *FALLBACK_COLOURS])
def test_labels_can_be_read_on_white(colour: str) -> None:
    luminance = np.dot([0.2126, 0.7152, 0.0722], linear(colour))
    assert 1.05 / (luminance + 0.05) >= 2.8


def test_unknown_families_have_colours_that_stay() -> None:
    assert family_colour("dino") == FAMILY_COLOURS["dino"]
    assert family_colour("something-new") == family_colour("something-new") in FALLBACK_COLOURS
    assert len({family_colour(f"family-{index}") for index in range(50)}) == len(FALLBACK_COLOURS)
