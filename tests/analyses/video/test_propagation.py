"""Labels carried through a video, against plain loops over the definition in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from vitfeat.analyses.video.propagation import _tile, carried_labels, propagate, unit_tokens
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.errors import AnalysisError

Tokens = np.ndarray


def reference(frames: list[Tokens], first: Tokens, settings: VideoSettings) -> list[Tokens]:
    """Every pair of tokens of the context in turn; cosines, weights and sums in float64."""
    labels = [first]
    rows, columns = first.shape[:2]
    for t in range(1, len(frames)):
        context = sorted({0, *range(max(0, t - settings.context), t)})
        found = np.zeros(first.shape)
        for y in range(rows):
            for x in range(columns):
                matches = []
                for f in context:
                    for b in range(rows):
                        for a in range(columns):
                            near = max(abs(b - y), abs(a - x)) <= settings.neighbourhood
                            if near:
                                matches.append(
                                    (cosine(frames[t][y, x], frames[f][b, a]), labels[f][b, a])
                                )
                matches.sort(key=lambda match: -match[0])
                last = matches[min(settings.top, len(matches)) - 1][0]
                counted = [match for match in matches if match[0] >= last]
                weights = [math.exp(value / settings.temperature) for value, _ in counted]
                for weight, (_, label) in zip(weights, counted, strict=True):
                    found[y, x] += weight / sum(weights) * label
        labels.append(found)
    return labels[1:]


def cosine(a: Tokens, b: Tokens) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b) / norms if norms else 0.0


def video(n: int, rows: int, columns: int, channels: int = 6, seed: int = 0) -> list[Tokens]:
    """Frames that resemble each other, as those of a video do."""
    generator = np.random.default_rng(seed)
    still = generator.standard_normal((rows, columns, channels))
    return [still + 0.5 * generator.standard_normal(still.shape) for _ in range(n)]


def soft(rows: int, columns: int, labels: int = 3, seed: int = 9) -> Tokens:
    drawn = np.random.default_rng(seed).random((rows, columns, labels))
    return drawn / drawn.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        ((5, 6), VideoSettings(context=3, neighbourhood=2, top=4)),
        ((7, 4), VideoSettings(context=2, neighbourhood=1, top=5, temperature=0.5)),
        ((1, 9), VideoSettings(context=0, neighbourhood=3, top=2)),
        ((9, 1), VideoSettings(context=1, neighbourhood=12, top=5, temperature=0.02)),
        ((4, 4), VideoSettings(context=7, neighbourhood=2, top=1)),
        ((3, 3), VideoSettings(context=2, neighbourhood=1, top=5)),
        ((2, 3), VideoSettings(context=1, neighbourhood=1, top=1000)),
    ],
)
def test_labels_are_those_of_the_definition(grid: tuple[int, int], settings: VideoSettings) -> None:
    frames, first = video(6, *grid), soft(*grid)
    found = list(propagate(frames, first, settings))
    expected = reference(frames, first, settings)
    assert len(found) == 5
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(np.sum(found, axis=-1), 1, atol=1e-12)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole frames at once, and any cut of them, give the same labels up to rounding."""
    frames, first = video(4, 8, 11, channels=16), soft(8, 11)
    settings = VideoSettings(context=2, neighbourhood=3)
    expected = reference(frames, first, settings)
    for tile in ((8, 11), (1, 1), (3, 4), (8, 2), (5, 11)):
        monkeypatch.setattr("vitfeat.analyses.video.propagation._tile", lambda *_, tile=tile: tile)
        np.testing.assert_allclose(list(propagate(frames, first, settings)), expected, atol=2e-5)


def test_tiles_follow_the_longer_side_and_the_memory() -> None:
    down, across = _tile(28, 49, 768, 8, 12)
    assert down == 28
    assert across < 20
    assert _tile(49, 28, 768, 8, 12) == (across, down)
    assert _tile(8, 8, 64, 8, 12) == (8, 8)
    down, across = _tile(150, 200, 1024, 8, 12)
    keys = 8 * (down + 24) * (across + 24)
    assert 4 * keys * (1024 + down * across) <= 96 * 2**20


def test_features_that_tell_places_apart_keep_labels_in_place() -> None:
    """Each token resembles itself alone: in every frame it has its own label."""
    grid = (4, 5)
    frames = [np.eye(20).reshape(*grid, 20)] * 12
    first = np.eye(3)[np.arange(20).reshape(grid) % 3]
    for found in propagate(frames, first, VideoSettings(temperature=0.01)):
        np.testing.assert_allclose(found, first, atol=1e-12)


def test_labels_follow_features_that_move() -> None:
    """A token moves a column a frame: so does its label, by the frame before."""
    colours = np.eye(12)
    frames = [np.stack([np.roll(colours, step, axis=0)] * 3) for step in range(8)]
    first = np.zeros((3, 12, 2))
    first[..., 0] = 1
    first[:, 2] = (0, 1)
    settings = VideoSettings(context=2, neighbourhood=1, top=3, temperature=0.01)
    for step, found in enumerate(propagate(frames, first, settings), start=1):
        assert (found[..., 1].argmax(axis=1) == (2 + step)).all()
        np.testing.assert_allclose(found, np.roll(first, step, axis=1), atol=1e-12)


def test_the_context_is_the_first_frame_and_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames are told by the channel that they have a one in, labels by their value."""
    seen: list[list[int]] = []

    def note(query: Tokens, keys: Tokens, labels: Tokens, settings: VideoSettings) -> Tokens:
        frames = keys[:, 0, 0].argmax(axis=-1)
        np.testing.assert_array_equal(labels[:, 0, 0, 0], frames)
        seen.append(sorted(frames.tolist()))
        return np.full((1, 1, 1), float(query[0, 0].argmax()))

    monkeypatch.setattr("vitfeat.analyses.video.propagation.carried_labels", note)
    frames = np.eye(6).reshape(6, 1, 1, 6)
    list(propagate(frames, np.zeros((1, 1, 1)), VideoSettings(context=2)))
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    seen.clear()
    list(propagate(frames, np.zeros((1, 1, 1)), VideoSettings(context=0)))
    assert seen == [[0]] * 5


def test_the_first_frame_counts_once() -> None:
    """With a context of one frame, the second frame has the first alone, not twice."""
    frames, first = video(3, 3, 3), soft(3, 3)
    settings = VideoSettings(context=1, neighbourhood=2, top=4)
    found, _ = propagate(frames, first, settings)
    alone = next(propagate(frames, first, VideoSettings(context=0, neighbourhood=2, top=4)))
    np.testing.assert_array_equal(found, alone)


def test_the_neighbourhood_is_a_square_around_the_token() -> None:
    """The only like token counts at two rows or columns away, not at three."""
    first = np.zeros((9, 9, 2))
    first[..., 0] = 1
    first[4, 4] = (0, 1)
    marked, plain = np.zeros((9, 9, 2)), np.zeros((9, 9, 2))
    marked[..., 0] = plain[..., 1] = 1
    marked[4, 4] = (0, 1)
    settings = VideoSettings(neighbourhood=2, top=1, temperature=0.1)
    (found,) = propagate([marked, plain], first, settings)
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 1
    np.testing.assert_array_equal(found[..., 1], expected)


def test_the_best_matches_are_chosen_over_all_frames_together() -> None:
    """Of two matches in all, both are in the frame that resembles most, none in the other."""
    far, near = np.array([[[1.0, 1.0], [1.0, 1.1]]]), np.array([[[1.0, 0.1], [1.0, 0.2]]])
    asked = np.array([[[1.0, 0.0], [1.0, 0.05]]])
    settings = VideoSettings(neighbourhood=1, top=2, temperature=10)
    keys = np.stack([unit_tokens(frame) for frame in (far, near)])
    labels = np.zeros((2, 1, 2, 2))
    labels[0, ..., 0] = labels[1, ..., 1] = 1
    found = carried_labels(unit_tokens(asked), keys, labels, settings)
    np.testing.assert_array_equal(found, labels[1])


def test_ties_with_the_last_match_count_and_no_order_decides() -> None:
    """A hand-worked case: cosines 1, 0, 0, 0 with top 2 are four matches, of weights e and 1."""
    keys = np.zeros((1, 1, 4, 2))
    keys[0, 0] = ((1, 0), (0, 1), (0, 1), (0, 1))
    labels = np.array([[[[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]]])
    settings = VideoSettings(context=0, neighbourhood=3, top=2, temperature=1)
    frames = [keys[0], np.tile([1.0, 0.0], (1, 4, 1))]
    (found,) = propagate(frames, labels[0], settings)
    total = math.e + 3
    np.testing.assert_allclose(found[0], [[math.e / total, 2 / total, 1 / total]] * 4, rtol=1e-12)
    order = [2, 3, 0, 1]
    (moved,) = propagate([keys[0][:, order], frames[1]], labels[0][:, order], settings)
    np.testing.assert_allclose(moved, found, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_features_take_the_mean_of_the_neighbourhood(value: float) -> None:
    """All tokens tie, those of zeros too: labels are means, and no NaN."""
    frames = [np.full((4, 6, 5), value, dtype=np.float16)] * 3
    first = soft(4, 6)
    settings = VideoSettings(context=2, neighbourhood=1, top=5)
    found = list(propagate(frames, first, settings))
    assert np.isfinite(found).all()
    padded = np.pad(first, ((1, 1), (1, 1), (0, 0)))
    counts = np.pad(np.ones((4, 6, 1)), ((1, 1), (1, 1), (0, 0)))
    shifts = [(slice(y, y + 4), slice(x, x + 6)) for y in range(3) for x in range(3)]
    mean = sum(padded[s] for s in shifts) / sum(counts[s] for s in shifts)
    np.testing.assert_allclose(found[0], mean, atol=1e-12)


def test_a_token_of_zeros_beside_others() -> None:
    frames, first = video(3, 4, 4), soft(4, 4)
    frames[0][1, 2] = frames[1][3, 3] = 0
    settings = VideoSettings(context=2, neighbourhood=2)
    found = list(propagate(frames, first, settings))
    np.testing.assert_allclose(found, reference(frames, first, settings), atol=2e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_only_directions_of_tokens_count(scale: float) -> None:
    frames, first = video(4, 4, 5), soft(4, 5)
    settings = VideoSettings(neighbourhood=2)
    scaled = [(scale * frame).astype(np.float32) for frame in frames]
    np.testing.assert_allclose(
        list(propagate(scaled, first, settings)),
        list(propagate(frames, first, settings)),
        atol=2e-5,
    )


def test_the_smallest_temperature_takes_the_best_match_alone() -> None:
    frames, first = video(2, 5, 5), soft(5, 5)
    (cold,) = propagate(frames, first, VideoSettings(temperature=1e-12))
    (best,) = propagate(frames, first, VideoSettings(top=1))
    np.testing.assert_allclose(cold, best, atol=1e-12)


def test_random_features_know_nothing() -> None:
    """Labels are means of those nearby: the share of an object stays its share, about."""
    generator = np.random.default_rng(0)
    frames = [generator.standard_normal((14, 14, 32)) for _ in range(6)]
    first = np.eye(2)[generator.integers(0, 2, (14, 14))]
    *_, found = propagate(frames, first, VideoSettings())
    assert abs(found[..., 1].mean() - first[..., 1].mean()) < 0.1
    correlation = np.corrcoef(found[..., 1].ravel(), first[..., 1].ravel())[0, 1]
    assert abs(correlation) < 0.2


def test_frames_are_read_one_at_a_time_and_left_alone() -> None:
    frames, first = video(4, 3, 4), soft(3, 4)
    copies = [frame.copy() for frame in frames]
    read: list[int] = []

    def lazily() -> Iterator[Tokens]:
        for number, frame in enumerate(frames):
            read.append(number)
            yield frame

    labels = propagate(lazily(), first, VideoSettings())
    next(labels)
    assert read == [0, 1]
    assert len(list(labels)) == 2
    for frame, copy in zip(frames, copies, strict=True):
        np.testing.assert_array_equal(frame, copy)


def test_one_frame_has_nothing_to_find() -> None:
    assert list(propagate(video(1, 3, 3), soft(3, 3), VideoSettings())) == []


def test_errors_say_which_frame() -> None:
    frames, first = video(3, 3, 4), soft(3, 4)
    with pytest.raises(AnalysisError, match=r"labels of shape \(3, 3, 3\) for features of shape"):
        list(propagate(frames, soft(3, 3), VideoSettings()))
    with pytest.raises(AnalysisError, match=r"frame 2 has features of shape \(4, 3, 6\)"):
        list(propagate([*frames[:2], frames[2].transpose(1, 0, 2)], first, VideoSettings()))
    frames[1][0, 0, 0] = np.nan
    with pytest.raises(AnalysisError, match="frame 1: features hold values that are not finite"):
        list(propagate(frames, first, VideoSettings()))
