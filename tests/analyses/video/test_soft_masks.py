"""Masks as labels of tokens, and labels as masks: from the definitions, in loops over pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from vitfeat.analyses.video.soft_masks import box_of, first_labels, to_mask, tokens_inside
from vitfeat.data.views import PaddedView
from vitfeat.errors import AnalysisError

Array = np.ndarray
Box = tuple[float, float, float, float]


def channels_at(labels: Array, box: Box, size: tuple[int, int]) -> Array:
    """Every channel at every pixel: the bilinear mean of the tokens around it."""
    rows, columns, channels = labels.shape
    left, top, right, bottom = box
    found = np.zeros((*size, channels))
    for h, w in product(range(size[0]), range(size[1])):
        v = (h + 0.5 - top) / (bottom - top) * rows - 0.5
        u = (w + 0.5 - left) / (right - left) * columns - 0.5
        v, u = min(max(v, 0.0), rows - 1.0), min(max(u, 0.0), columns - 1.0)
        for i, j in product(range(rows), range(columns)):
            weight = max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(u - j))
            found[h, w] += weight * labels[i, j]
    return found


def soft(rows: int, columns: int, channels: int, seed: int = 0) -> Array:
    drawn = np.random.default_rng(seed).random((rows, columns, channels))
    return drawn / drawn.sum(axis=-1, keepdims=True)


CASES = [
    ((3, 5), (17, 23), (0.0, 0.0, 23.0, 17.0)),
    ((4, 4), (16, 24), (4.0, 0.0, 20.0, 16.0)),
    ((5, 3), (12, 9), (-3.5, 0.0, 12.5, 12.0)),
    ((1, 1), (4, 4), (0.0, 0.0, 4.0, 4.0)),
    ((9, 8), (5, 4), (0.0, 0.0, 4.0, 5.0)),
]


@pytest.mark.parametrize(("grid", "size", "box"), CASES)
def test_the_largest_interpolated_channel_wins(
    grid: tuple[int, int], size: tuple[int, int], box: Box
) -> None:
    labels = soft(*grid, 4)
    if grid == (1, 1):
        labels[..., 0] += 1
    mask = to_mask(labels, box, size)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, channels_at(labels, box, size).argmax(axis=-1))


@pytest.mark.parametrize(("grid", "size"), [((28, 49), (480, 854)), ((7, 5), (33, 90))])
def test_of_the_whole_frame_it_is_what_pytorch_interpolates(
    grid: tuple[int, int], size: tuple[int, int]
) -> None:
    labels = soft(*grid, 3)
    tensor = torch.from_numpy(labels).permute(2, 0, 1)[None]
    fine = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
    mask = to_mask(labels, (0.0, 0.0, float(size[1]), float(size[0])), size)
    np.testing.assert_array_equal(mask, fine[0].argmax(dim=0).numpy())


def test_paper_scales_every_channel_over_the_frame() -> None:
    labels, box, size = soft(4, 5, 3), (0.0, 0.0, 25.0, 22.0), (22, 25)
    fine = channels_at(labels, box, size)
    low, high = fine.min(axis=(0, 1)), fine.max(axis=(0, 1))
    expected = ((fine - low) / (high - low)).argmax(axis=-1)
    assert (expected != fine.argmax(axis=-1)).any()
    np.testing.assert_array_equal(to_mask(labels, box, size, "paper"), expected)


def test_by_paper_a_weak_object_wins_and_by_none_it_does_not() -> None:
    labels = np.zeros((4, 4, 2))
    labels[1, 2, 1] = 0.1
    labels[..., 0] = 1 - labels[..., 1]
    box, size = (0.0, 0.0, 16.0, 16.0), (16, 16)
    assert not to_mask(labels, box, size).any()
    assert to_mask(labels, box, size, "paper")[6, 10] == 1


@pytest.mark.parametrize("normalise", ["none", "paper"])
def test_a_constant_object_wins_no_pixel(normalise: str) -> None:
    """Neither over background nor over an object that is somewhere, whatever its label."""
    box, size = (0.0, 0.0, 16.0, 16.0), (16, 16)
    labels = np.zeros((4, 4, 4))
    labels[..., 1] = 0.6
    labels[:2, :, 2] = labels[2:, :, 0] = 0.4
    mask = to_mask(labels, box, size, normalise)
    assert set(np.unique(mask)) == {0, 2}
    assert (mask[:7] == 2).all()
    noise = 1e-8 * np.random.default_rng(0).standard_normal(labels.shape)
    np.testing.assert_array_equal(to_mask(labels + noise, box, size, normalise), mask)


@pytest.mark.parametrize("normalise", ["none", "paper"])
def test_where_all_channels_are_constant_all_is_background(normalise: str) -> None:
    labels = np.broadcast_to([0.3, 0.7], (3, 3, 2))
    assert not to_mask(labels, (0.0, 0.0, 9.0, 9.0), (9, 9), normalise).any()


def test_by_paper_constant_background_is_0() -> None:
    labels = np.full((2, 2, 3), 0.4)
    labels[0, :, 1], labels[1, :, 1] = 0.1, 0.5
    labels[..., 2] = 0.6 - labels[..., 1]
    mask = to_mask(labels, (0.0, 0.0, 2.0, 2.0), (2, 2), "paper")
    assert mask.tolist() == [[2, 2], [1, 1]]


def test_an_object_that_fills_the_frame_has_all_of_it() -> None:
    labels = np.zeros((3, 3, 3))
    labels[..., 2] = 1
    assert (to_mask(labels, (0.0, 0.0, 9.0, 9.0), (9, 9)) == 2).all()


def test_at_ties_background_wins_then_the_lower_number() -> None:
    labels = np.zeros((2, 2, 4))
    labels[0] = (0.5, 0, 0.5, 0)
    labels[1, 0] = (0.2, 0.0, 0.4, 0.4)
    labels[1, 1] = (0.2, 0.4, 0.4, 0.0)
    box = (0.0, 0.0, 2.0, 2.0)
    assert to_mask(labels, box, (2, 2)).tolist() == [[0, 0], [2, 1]]


def test_labels_are_shares_of_area() -> None:
    """Tokens of 4 x 3 pixels: counts over 12; void and numbers above n are background."""
    mask = np.random.default_rng(1).integers(0, 5, (12, 12), dtype=np.uint8)
    mask[mask == 4] = 255
    mask[mask == 3] = 77
    # Each object has a token of its own: neither is raised.
    mask[:4, 3:6], mask[8:, 9:] = 1, 2
    labels = first_labels(mask, 2, (0.0, 0.0, 12.0, 12.0), (3, 4)).labels
    for i, j in product(range(3), range(4)):
        token = mask[4 * i : 4 * i + 4, 3 * j : 3 * j + 3]
        shares = [(token == number).sum() / 12 for number in (1, 2)]
        np.testing.assert_allclose(labels[i, j], [1 - sum(shares), *shares], atol=1e-12)


def test_labels_of_tokens_that_cut_pixels() -> None:
    """One column of 3 pixels under two tokens: the middle pixel is half of each."""
    mask = np.array([[1, 1, 0]], dtype=np.uint8)
    found = first_labels(mask, 1, (0.0, 0.0, 3.0, 1.0), (1, 2))
    np.testing.assert_allclose(found.labels[0, :, 1], [1, 1 / 3])
    assert found.lifted == found.lost == ()


def test_masks_aligned_with_tokens_come_back_as_they_were() -> None:
    """Quarters of the frame, so that no corner of an object is rounded off."""
    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[:12, 16:], mask[12:, :16], mask[12:, 16:] = 1, 2, 3
    box = (0.0, 0.0, 32.0, 24.0)
    found = first_labels(mask, 3, box, (6, 8))
    assert set(np.unique(found.labels)) == {0.0, 1.0}
    np.testing.assert_array_equal(to_mask(found.labels, box, (24, 32)), mask)


def test_an_object_smaller_than_a_token_can_win() -> None:
    """2 of 64 pixels of one token and 1 of the next: 1 and a half after lifting."""
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[:16, :16] = 1
    mask[20, 22:25] = 2
    box = (0.0, 0.0, 32.0, 32.0)
    found = first_labels(mask, 2, box, (4, 4))
    assert found.lifted == (2,)
    assert found.lost == ()
    assert found.labels[2, 2].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.labels[2, 3], [0.5, 0, 0.5])
    others = np.ones((4, 4), dtype=bool)
    others[2, 2:] = False
    assert not found.labels[others][:, 2].any()
    np.testing.assert_allclose(found.labels.sum(axis=-1), 1)
    back = to_mask(found.labels, box, (32, 32))
    assert 0 < (back == 2).sum() < 2 * 64
    assert back[20, 20] == 2
    np.testing.assert_array_equal(back == 1, to_mask(found.labels[..., :2], box, (32, 32)) == 1)


def test_a_line_thinner_than_half_a_token_stays_a_line() -> None:
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[10:12] = 1
    found = first_labels(mask, 1, (0.0, 0.0, 32.0, 32.0), (4, 4))
    assert found.lifted == (1,)
    assert (found.labels[..., 1] == np.array([0, 1, 0, 0])[:, None]).all()


def test_an_object_takes_room_from_others_in_proportion() -> None:
    """Tokens of 64 pixels; object 2 has 8 of the first and 4 of the second."""
    mask = np.zeros((8, 16), dtype=np.uint8)
    mask[:, 8:] = 1
    mask[:4, 8:12] = 0
    mask[0, :8] = mask[7, 12:] = 2
    found = first_labels(mask, 2, (0.0, 0.0, 16.0, 8.0), (1, 2))
    assert found.lifted == (2,)
    # Of the second token object 1 has 44 and background 16: half is left for 60.
    np.testing.assert_allclose(found.labels[0], [[0, 0, 1], [8 / 60, 22 / 60, 0.5]], atol=1e-11)


def test_raised_labels_that_sum_to_more_than_1_are_divided() -> None:
    """Object 2 has 4 of 64 pixels of the first token, object 3 has 2, and 8 of the second."""
    mask = np.zeros((8, 16), dtype=np.uint8)
    mask[0, :4], mask[1, :2], mask[2, 8:] = 2, 3, 3
    found = first_labels(mask, 3, (0.0, 0.0, 16.0, 8.0), (1, 2))
    assert found.lifted == (2, 3)
    assert found.lost == ()
    expected = [[0, 0, 1 / 1.25, 0.25 / 1.25], [0, 0, 0, 1]]
    np.testing.assert_allclose(found.labels[0], expected, atol=1e-11)


def test_two_objects_of_one_token_cannot_both_be_kept() -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[3, 3], mask[4, 4] = 1, 2
    found = first_labels(mask, 2, (0.0, 0.0, 16.0, 16.0), (2, 2))
    assert found.lifted == (1, 2)
    assert found.lost == (2,)
    np.testing.assert_allclose(found.labels[0, 0], [0, 0.5, 0.5])


def test_an_object_beyond_the_view_is_lost() -> None:
    mask = np.zeros((8, 16), dtype=np.uint8)
    mask[:4, 5:9] = 1
    mask[:, 15] = 2
    found = first_labels(mask, 2, (4.0, 0.0, 12.0, 8.0), (4, 4))
    assert found.lifted == ()
    assert found.lost == (2,)
    assert not found.labels[..., 2].any()


def test_an_empty_mask_is_background() -> None:
    found = first_labels(np.zeros((4, 4), dtype=np.uint8), 0, (0.0, 0.0, 4.0, 4.0), (2, 2))
    assert found.labels.tolist() == [[[1.0]] * 2] * 2
    assert found.lifted == found.lost == ()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (slice(0, 8), slice(0, 8))),
        ((32, 64), (slice(2, 6), slice(0, 8))),
        ((64, 32), (slice(0, 8), slice(2, 6))),
        # 23 of 32 rows: 4 above, 5 below.
        ((23, 32), (slice(1, 7), slice(0, 8))),
        # 21 of 32 rows: 5 above, 6 below.
        ((21, 32), (slice(1, 7), slice(0, 8))),
    ],
)
def test_tokens_of_padding_are_left_out(
    size: tuple[int, int], expected: tuple[slice, slice]
) -> None:
    box = PaddedView((32, 32)).box(size[1], size[0])
    tokens = tokens_inside(box, size, (8, 8))
    assert tokens == expected
    left, top, right, bottom = box_of(box, (8, 8), tokens)
    token = ((box[3] - box[1]) / 8, (box[2] - box[0]) / 8)
    assert top == pytest.approx(box[1] + expected[0].start * token[0])
    assert bottom == pytest.approx(box[1] + expected[0].stop * token[0])
    assert left == pytest.approx(box[0] + expected[1].start * token[1])
    assert right == pytest.approx(box[0] + expected[1].stop * token[1])
    assert top <= 0
    assert bottom >= size[0]


def test_errors() -> None:
    with pytest.raises(AnalysisError, match="normalise 'papre': must be one of none, paper"):
        to_mask(soft(2, 2, 2), (0.0, 0.0, 4.0, 4.0), (4, 4), "papre")
    with pytest.raises(AnalysisError, match="256 objects in a mask; it has numbers for 255"):
        to_mask(np.zeros((2, 2, 257)), (0.0, 0.0, 4.0, 4.0), (4, 4))
