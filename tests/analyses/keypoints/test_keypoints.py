from __future__ import annotations

import random
from collections import Counter
from math import hypot

import numpy as np
import pytest

from vitfeat.analyses.keypoints.compute import (
    Points,
    Score,
    chance,
    chance_scores,
    drawn_pairs,
    held_within,
    hits,
    is_shown,
    scores,
)
from vitfeat.data.annotations import PointRow
from vitfeat.data.views import DenseView, PaddedView, SquareView
from vitfeat.numerics.upsampled import features_at, nearest_pixels


def row(
    pair: int = 0,
    category: str = "cat",
    at: tuple[float, float] = (0.0, 0.0),
    box: tuple[float, float, float, float] = (0, 0, 10, 20),
    source: str = "a",
    target: str = "b",
) -> PointRow:
    return PointRow(pair, category, source, target, 0, 1.0, 2.0, *at, *box)


def by_name(found: list[Score]) -> dict[tuple[str, str, str], tuple[int, float]]:
    named = {(s.variant, s.score, s.group): (s.n, s.value) for s in found}
    assert len(named) == len(found)
    return named


def random_rows(n: int, seed: int = 0) -> list[PointRow]:
    generator = random.Random(seed)
    rows = []
    for number in range(n):
        pair = number // 3
        left, top = generator.uniform(0, 20), generator.uniform(0, 20)
        box = (left, top, left + generator.uniform(5, 30), top + generator.uniform(5, 30))
        at = (generator.uniform(0, 50), generator.uniform(0, 40))
        rows.append(row(pair, ("cat", "dog", "eft")[pair % 3], at, box))
    return rows


def test_pck_by_hand() -> None:
    # The larger side is 20: 0.1 of it are 2 pixels.
    rows = [
        row(4, "cat", (10, 10)),
        row(4, "cat", (10, 10)),
        row(4, "cat", (10, 10)),
        row(7, "cat", (5, 5), (0, 0, 40, 20)),
        row(2, "dog", (0, 0)),
    ]
    found = np.array([[10, 12], [12.001, 10], [10 + 2**0.5, 10 - 2**0.5], [5, 9.01], [0, 0]])
    values = by_name(list(scores(Points.of(rows), found, np.array([0, 1, 0, 0, 1]) > 0, [0.1])))
    assert values == {
        ("0.1", "pck_point", ""): (5, 3 / 5),
        ("0.1", "pck_image", ""): (3, pytest.approx((2 / 3 + 0 + 1) / 3)),
        ("0.1", "pck_point", "cat"): (4, 2 / 4),
        ("0.1", "pck_image", "cat"): (2, pytest.approx((2 / 3 + 0) / 2)),
        ("0.1", "pck_point", "dog"): (1, 1.0),
        ("0.1", "pck_image", "dog"): (1, 1.0),
        ("0.1", "pck_point_category_mean", ""): (2, 0.75),
        ("0.1", "pck_image_category_mean", ""): (2, pytest.approx((1 / 3 + 1) / 2)),
        ("", "ties", ""): (5, 2 / 5),
    }


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01, 0.07, 0.29, 0.3])
@pytest.mark.parametrize("side", [10, 30, 70, 100, 700])
def test_a_distance_of_just_alpha_counts(alpha: float, side: int) -> None:
    distance = round(alpha * side, 6)
    points = Points.of([row(at=(0, 0), box=(5, 5, 5 + side, 6))] * 3)
    found = [[distance, 0], [0, -distance], [distance + 1e-3, 0]]
    assert hits(found, points, alpha).tolist() == [True, True, False]


def test_the_larger_side_of_the_box_counts() -> None:
    points = Points.of([row(box=(3, 4, 13, 104)), row(box=(3, 4, 103, 14))])
    assert points.side.tolist() == [100, 100]
    assert hits([[9, 0], [9, 0]], points, 0.1).all()


def test_scores_are_those_of_plain_loops() -> None:
    rows = random_rows(60)
    generator = np.random.default_rng(1)
    found = np.array([(r.target_x, r.target_y) for r in rows]) + generator.normal(0, 2, (60, 2))
    alphas = (0.2, 0.1, 0.05)
    values = by_name(list(scores(Points.of(rows), found, generator.random(60) < 0.3, alphas)))
    for alpha in alphas:
        for group in ("", "cat", "dog", "eft"):
            flat, of_pair = [], {}
            for r, (x, y) in zip(rows, found, strict=True):
                if group in ("", r.category):
                    side = max(r.box_right - r.box_left, r.box_bottom - r.box_top)
                    hit = hypot(x - r.target_x, y - r.target_y) <= alpha * side
                    flat.append(hit)
                    of_pair.setdefault(r.pair, []).append(hit)
            assert 0 < sum(flat) < len(flat)
            per_pair = [sum(h) / len(h) for h in of_pair.values()]
            name = f"{alpha:g}"
            assert values[name, "pck_point", group] == (
                len(flat),
                pytest.approx(sum(flat) / len(flat)),
            )
            assert values[name, "pck_image", group] == (
                len(per_pair),
                pytest.approx(sum(per_pair) / len(per_pair)),
            )


def test_chance_counts_the_pixels_that_are_near_enough() -> None:
    rows = random_rows(40, seed=5)
    points = Points.of(rows)
    sizes = [(41, 33), (20, 45)] * 20
    views = [SquareView((16, 16)), PaddedView((16, 16))] * 20
    boxes = [view.box(*size) for view, size in zip(views, sizes, strict=True)]
    for alpha in (0.1, 0.4, 1.5):
        found = chance(points, boxes, sizes, alpha)
        for r, box, size, value in zip(rows, boxes, sizes, found, strict=True):
            side = max(r.box_right - r.box_left, r.box_bottom - r.box_top)
            candidates = [
                (x, y)
                for x in range(size[0])
                for y in range(size[1])
                if box[0] <= x + 0.5 <= box[2] and box[1] <= y + 0.5 <= box[3]
            ]
            near = sum(hypot(x - r.target_x, y - r.target_y) <= alpha * side for x, y in candidates)
            assert value == pytest.approx(near / len(candidates), abs=1e-12)


def test_chance_by_hand() -> None:
    # 5 of the 100 pixels are at most 1 away; at the corner 3; beyond the image none.
    rows = [row(at=at, box=(0, 0, 10, 1)) for at in ((4, 4), (0, 9), (30, 4))]
    box = [(0.0, 0.0, 10.0, 10.0)] * 3
    found = chance(Points.of(rows), box, [(10, 10)] * 3, 0.1)
    assert found == pytest.approx([0.05, 0.03, 0])
    values = by_name(list(chance_scores(Points.of(rows), box, [(10, 10)] * 3, [0.1])))
    assert values["0.1", "chance_point", ""] == (3, pytest.approx(0.08 / 3))


def test_random_features_find_as_much_as_chance() -> None:
    generator = np.random.default_rng(0)
    size, grid, n = (36, 28), (7, 9), 6000
    box = (0.0, 0.0, 36.0, 28.0)
    rows = [
        row(number, at=(generator.uniform(6, 30), generator.uniform(6, 22)), box=(0, 0, 30, 9))
        for number in range(n)
    ]
    points = Points.of(rows)
    places = np.concatenate(
        [
            nearest_pixels(
                generator.standard_normal((20, 16)),
                generator.standard_normal((*grid, 16)),
                box,
                size,
            ).places
            for _ in range(n // 20)
        ]
    )
    for alpha in (0.2, 0.3):
        expected = chance(points, [box] * n, [size] * n, alpha).mean()
        share = hits(places, points, alpha).mean()
        assert 0.05 < expected < 0.4
        # Two standard deviations of a share of n independent points are 0.013.
        assert share == pytest.approx(expected, abs=0.02)


def position_tokens(grid: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Features that say where in the image a token is: angles of a quarter turn at most."""
    left, top, right, bottom = box
    y = top + (np.arange(grid[0]) + 0.5) * (bottom - top) / grid[0]
    x = left + (np.arange(grid[1]) + 0.5) * (right - left) / grid[1]
    b, a = np.meshgrid(y / 50, x / 50, indexing="ij")
    return np.stack((np.cos(a), np.sin(a), np.cos(b), np.sin(b)), axis=-1)


@pytest.mark.parametrize(
    "view", [PaddedView((32, 32)), SquareView((32, 32), 1.0), DenseView("short", 32, (4, 4))]
)
def test_features_that_are_positions_give_100_on_the_same_image(view: object) -> None:
    size = (48, 36)
    box = view.box(*size)  # type: ignore[attr-defined]
    grid = (8, 8) if not isinstance(view, DenseView) else (8, 10)
    tokens = position_tokens(grid, box)
    places = np.array([(x, y) for x in range(10, 38) for y in range(4, 32)], dtype=float)
    found = nearest_pixels(features_at(tokens, box, places), tokens, box, size)
    np.testing.assert_array_equal(found.places, places)
    assert not found.tied.any()
    points = Points.of([row(at=(x, y), box=(0, 0, 1, 1)) for x, y in places.tolist()])
    assert hits(found.places, points, 0.01).all()


def test_pck_of_a_known_shift() -> None:
    # The target's content is that of the source, 5 tokens of 4 pixels to the left and 1 down.
    generator = np.random.default_rng(3)
    world = generator.standard_normal((20, 30, 32))
    box, size = (0.0, 0.0, 40.0, 40.0), (40, 40)
    source, target = world[3:13, 5:15], world[2:12, 10:20]
    places = np.array([(x, y) for x in range(22, 38) for y in range(2, 34)], dtype=float)
    found = nearest_pixels(features_at(source, box, places), target, box, size)
    np.testing.assert_array_equal(found.places, places + np.array([-20, 4]))
    # Annotated 3 to the right and 4 below of where it is: 5 of a side of 50 pixels.
    points = Points.of([row(at=(x - 17, y + 8), box=(0, 0, 50, 40)) for x, y in places.tolist()])
    shares = [hits(found.places, points, alpha).mean() for alpha in (0.11, 0.1, 0.099, 0.05)]
    assert shares == [1, 1, 0, 0]


def many_pairs(counts: dict[str, int], points: int = 3) -> list[PointRow]:
    rows: list[PointRow] = []
    for category, n in counts.items():
        for i in range(n):
            number = len(rows) // points
            one = row(number, category, source=f"{category}/{i}", target=f"{category}/{i + 1}")
            rows += [one._replace(point=k) for k in range(points)]
    return rows


def drawn_names(rows: list[PointRow], n: int, seed: int = 0) -> set[tuple[str, str]]:
    return {(r.source, r.target) for r in drawn_pairs(rows, n, seed)}


def test_pairs_are_drawn_without_replacement_of_each_category() -> None:
    rows = many_pairs({"cat": 20, "dog": 7, "eft": 4})
    drawn = drawn_pairs(rows, 6, 0)
    assert drawn == [r for r in rows if r in drawn]
    assert Counter(r.category for r in drawn) == {"cat": 18, "dog": 18, "eft": 12}
    assert len({r.pair for r in drawn}) == 16


def test_a_draw_depends_on_the_seed_and_on_no_order() -> None:
    rows = many_pairs({"cat": 40, "dog": 40})
    shuffled = list(reversed(rows))
    # As if files were listed in another order.
    renumbered = [r._replace(pair=1000 - r.pair) for r in shuffled]
    assert drawn_names(rows, 9) == drawn_names(renumbered, 9)
    assert drawn_names(rows, 9) != drawn_names(rows, 9, seed=1)
    assert drawn_names(rows, 9) < drawn_names(rows, 12)
    only = [r for r in rows if r.category == "dog"]
    assert drawn_names(only, 9) == {p for p in drawn_names(rows, 9) if p[0].startswith("dog")}


def test_every_pair_is_as_likely() -> None:
    rows = many_pairs({"cat": 10}, points=1)
    counts = Counter(r.pair for seed in range(600) for r in drawn_pairs(rows, 3, seed))
    # 180 expected, with a standard deviation of 11.
    assert all(180 - 45 < counts[pair] < 180 + 45 for pair in range(10))


@pytest.mark.parametrize(
    ("place", "held"),
    [((3.5, 2), (3.5, 2)), ((-1, 2), (0, 2)), ((10, 8), (9, 7)), ((9.2, 7.3), (9, 7))],
)
def test_places_beyond_the_image_are_held_within(
    place: tuple[float, float], held: tuple[float, float]
) -> None:
    assert held_within(place, (10, 8)) == held


def test_what_a_crop_does_not_show() -> None:
    size = (40, 20)
    box = SquareView((16, 16), 1.0).box(*size)
    assert box == (10, 0, 30, 20)
    shown = {x: is_shown((x, 5), size, box) for x in (9, 9.4, 10, 29, 29.4, 29.5, 30, 39)}
    assert shown == {9: 0, 9.4: 0, 10: 1, 29: 1, 29.4: 1, 29.5: 0, 30: 0, 39: 0}
    whole = PaddedView((16, 16)).box(*size)
    assert all(is_shown(place, size, whole) for place in ((0, 0), (39, 19), (40, 20), (-1, 3)))
    # The same of y.
    assert [is_shown((5, y), (20, 40), (0, 10, 20, 30)) for y in (9, 10, 29, 30)] == [0, 1, 1, 0]
