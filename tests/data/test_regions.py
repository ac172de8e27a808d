from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO

from vitfeat.data.annotations import RegionRow
from vitfeat.data.regions import compress, decode, encode, mask_of, unite
from vitfeat.errors import DataError

Mask = NDArray[np.bool_]


def by_pycocotools(segmentation: Any, height: int, width: int) -> Mask:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": height, "width": width}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    coco.createIndex()
    return np.asarray(coco.annToMask(coco.anns[1]), dtype=bool)


def run_lengths(mask: Mask) -> list[int]:
    """Count column by column, zeros first."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def compressed(lengths: list[int]) -> str:
    """Write run lengths as COCO does, one after the other."""
    text = ""
    for place, length in enumerate(lengths):
        x = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            group = x & 31
            x >>= 5
            more = x != -1 if group & 16 else x != 0
            text += chr(48 + (group | 32 if more else group))
    return text


def masks() -> list[Mask]:
    rng = np.random.default_rng(0)
    made = [
        np.zeros((5, 7), dtype=bool),
        np.ones((5, 7), dtype=bool),
        np.ones((1, 1), dtype=bool),
        rng.random((40, 30)) < 0.5,
        np.kron(rng.random((9, 7)) < 0.4, np.ones((60, 110))).astype(bool),
    ]
    made[0][2, 3] = True
    first = np.zeros((4, 4), dtype=bool)
    first[0, 0] = first[3, 3] = True
    return [*made, first, np.zeros((3, 2), dtype=bool)]


@pytest.mark.parametrize("mask", masks())
def test_round_trip(mask: Mask) -> None:
    counts = encode(mask)
    assert counts == compressed(run_lengths(mask))
    found = decode(counts, *mask.shape)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, mask)
    # Run lengths as a list, and compressed.
    size = list(mask.shape)
    for form in (run_lengths(mask), counts):
        segmentation = {"size": size, "counts": form}
        again = compress(segmentation, *mask.shape)
        assert again == counts
        np.testing.assert_array_equal(by_pycocotools(segmentation, *mask.shape), mask)


POLYGONS = {
    "square": [[2, 1, 6, 1, 6, 5, 2, 5]],
    "triangle of fractions": [[1.25, 0.5, 17.75, 3.3, 4.1, 11.9]],
    "three pieces": [[1, 1, 4, 1, 4, 4], [8, 2, 14, 2, 14, 9, 8, 9], [0, 10, 5, 10, 5, 12]],
    "pieces that overlap": [[2, 2, 10, 2, 10, 9, 2, 9], [6, 4, 15, 4, 15, 11, 6, 11]],
    "beyond the edges": [[-2.5, -1, 22, 3, 25.5, 14, 3, 13.2]],
    "crosses itself": [[2, 2, 15, 10, 15, 2, 2, 10]],
    "a line": [[2, 2, 9, 2, 5, 2]],
}


@pytest.mark.parametrize("polygons", POLYGONS.values(), ids=POLYGONS)
def test_polygons(polygons: list[list[float]]) -> None:
    want = by_pycocotools(polygons, 12, 20)
    np.testing.assert_array_equal(decode(compress(polygons, 12, 20), 12, 20), want)


@pytest.mark.parametrize("seed", range(30))
def test_random_polygons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, rng.integers(1, 5))
    polygons = [rng.uniform(-5, 60, 2 * n).round(2).tolist() for n in sizes]
    want = by_pycocotools(polygons, 48, 64)
    np.testing.assert_array_equal(decode(compress(polygons, 48, 64), 48, 64), want)


def test_a_square_by_hand() -> None:
    mask = np.zeros((12, 20), dtype=bool)
    mask[1:5, 2:6] = True
    np.testing.assert_array_equal(decode(compress(POLYGONS["square"], 12, 20), 12, 20), mask)


def test_polygons_of_fewer_than_three_points_cover_nothing() -> None:
    # pycocotools takes four numbers for a box, if they stand first.
    for few in ([], [3, 3], [1, 2, 8, 8]):
        assert not decode(compress([few], 12, 20), 12, 20).any()
        together = decode(compress([few, *POLYGONS["square"]], 12, 20), 12, 20)
        assert together.sum() == 16
    assert not decode(compress([], 12, 20), 12, 20).any()


def test_union() -> None:
    rng = np.random.default_rng(1)
    three = [rng.random((9, 14)) < 0.2 for _ in range(3)]
    found = unite([encode(mask) for mask in three], 9, 14)
    np.testing.assert_array_equal(decode(found, 9, 14), three[0] | three[1] | three[2])
    assert unite([found], 9, 14) == found
    assert not decode(unite([], 9, 14), 9, 14).any()


def test_row() -> None:
    mask = masks()[3]
    row = RegionRow("a.jpg", "object", 1, "cat", 0, 40, 30, encode(mask))
    np.testing.assert_array_equal(mask_of(row), mask)
    with pytest.raises(DataError, match=r"a mask of a\.jpg cannot be read .*1,200 pixels.*anew"):
        mask_of(row._replace(width=31))


BAD_COUNTS = {
    "empty": "",
    "too short": compressed([10]),
    "too long": compressed([50, 2, 48]),
    "negative": compressed([40, 40, -60, 0]),
    "goes on at the end": compressed([99]) + "P",
    "a character below": "1/",
    "a character above": "1~",
    "not ASCII": "1é",
    "a zero byte": "1\0",
    "a run of many characters": "o" * 60 + "0",
    "99, with groups of zeros behind": "SS" + "P" * 13 + "0",
    "a run of 33 bits": compressed([2**33, 99 - 2**33]),
    "wraps around to the right sum": compressed([2**32, 99]),
}


@pytest.mark.parametrize("counts", BAD_COUNTS.values(), ids=BAD_COUNTS)
def test_bad_counts(counts: str) -> None:
    with pytest.raises(DataError):
        decode(counts, 11, 9)
    with pytest.raises(DataError):
        compress({"size": [11, 9], "counts": counts}, 11, 9)


@pytest.mark.parametrize("size", [(0, 5), (-1, -99), (2**31, 2), (2**16, 2**16)])
def test_bad_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="there is no mask of"):
        decode(compressed([0]), *size)


def test_damaged_counts_give_an_error_or_a_mask() -> None:
    rng = np.random.default_rng(2)
    counts = encode(rng.random((30, 20)) < 0.3)
    good = 0
    for _ in range(3000):
        letters = list(counts)
        for place in rng.integers(len(letters), size=rng.integers(1, 4)):
            letters[place] = chr(rng.integers(40, 120))
        try:
            mask = decode("".join(letters), 30, 20)
        except DataError:
            continue
        good += 1
        again = rle.decode({"size": [30, 20], "counts": encode(mask).encode()})
        np.testing.assert_array_equal(mask, again)
    assert good < 300


BAD = {
    "nothing": (None, "neither a list of polygons nor run lengths"),
    "a text": ("abc", "neither"),
    "no counts": ({"size": [12, 20]}, "neither"),
    "of another size": (
        {"size": [20, 12], "counts": [240]},
        r"\[20, 12\], its image is \[12, 20\]",
    ),
    "no size": ({"counts": [240]}, "size None"),
    "too few": ({"size": [12, 20], "counts": [100]}, "cover 100 pixels, not the 240"),
    "negative": ({"size": [12, 20], "counts": [300, -60]}, "negative"),
    "too large": ({"size": [12, 20], "counts": [2**32 + 240]}, "longer than any image"),
    "beyond 64 bits": ({"size": [12, 20], "counts": [10**30]}, "no list of whole numbers"),
    "fractions": ({"size": [12, 20], "counts": [120.5, 119.5]}, "no list of whole numbers"),
    "texts": ({"size": [12, 20], "counts": ["240"]}, "no list of whole numbers"),
    "lists of lists": ({"size": [12, 20], "counts": [[240]]}, "no list of whole numbers"),
    "a number": ({"size": [12, 20], "counts": 240}, "no list of whole numbers"),
    "odd": ([[1, 1, 5, 1, 5, 5, 2]], "x and y by turns"),
    "a flat list": ([1, 1, 5, 1, 5, 5], "x and y by turns"),
    "points": ([[[1, 1], [5, 1], [5, 5]]], "x and y by turns"),
    "a polygon of texts": ([["1", "1", "5", "1", "5", "5"]], "x and y by turns"),
    "ragged": ([[1, [2], 3, 4, 5, 6]], "x and y by turns"),
    "none": ([[None] * 6], "x and y by turns"),
    "a mapping": ([{}], "x and y by turns"),
    "not a number": ([[1, 1, 5, float("nan"), 5, 5]], "are no numbers"),
    "infinite": ([[1, 1, 5, float("inf"), 5, 5]], "are no numbers"),
    "far outside": ([[1, 1, 1e9, 1, 5, 5]], "reaches far out of its image of 20 x 12"),
    "far outside, above": ([[1, -13, 6, 1, 5, 5]], "reaches far out"),
    "endless": ([[0, 0, 20, 12] * 60_000], "outline of a polygon is .* pixels long"),
}


@pytest.mark.parametrize(("segmentation", "message"), BAD.values(), ids=BAD)
def test_bad_segmentations(segmentation: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        compress(segmentation, 12, 20)
    assert "\n" not in str(caught.value)
