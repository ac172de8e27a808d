from __future__ import annotations

import pytest

from vitfeat.errors import ConfigError
from vitfeat.models.layers import select_layers


@pytest.mark.parametrize(
    ("depth", "name", "layer"),
    # By hand: floor(share * (depth - 1)).
    [
        (12, "first", 0),
        (12, "q1", 2),
        (12, "middle", 5),
        (12, "q3", 8),
        (12, "last", 11),
        (24, "q1", 5),
        (24, "middle", 11),
        (24, "q3", 17),
        (32, "q1", 7),
        (32, "middle", 15),
        (32, "q3", 23),
        (6, "q1", 1),
        (6, "middle", 2),
        (6, "q3", 3),
        (1, "q3", 0),
        (1, "last", 0),
        (2, "middle", 0),
    ],
)
def test_names(depth: int, name: str, layer: int) -> None:
    assert select_layers(depth, name) == [layer]


@pytest.mark.parametrize(
    ("wanted", "layers"),
    [
        ("all", [0, 1, 2, 3]),
        (2, [2]),
        (0, [0]),
        (-1, [3]),
        (-4, [0]),
        ([3, 0, -1], [0, 3]),
        (["last", "first", 1], [0, 1, 3]),
        (["all", 2], [0, 1, 2, 3]),
        ([], []),
    ],
)
def test_numbers_and_lists_are_sorted_without_repeats(wanted: object, layers: list[int]) -> None:
    assert select_layers(4, wanted) == layers  # type: ignore[arg-type]


def test_all_is_the_default() -> None:
    assert select_layers(3) == [0, 1, 2]


@pytest.mark.parametrize("number", [4, -5, 100])
def test_a_number_outside_the_model(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"found {number}; a model of 4 layers has 0 to 3"):
        select_layers(4, [0, number])


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"found 'midle' \(did you mean 'middle'\?\); allowed"):
        select_layers(4, "midle")


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (12, [0, 2, 4, 6, 8, 11]),
        (24, [0, 4, 9, 13, 18, 23]),
        (6, [0, 1, 2, 3, 4, 5]),
        (3, [0, 1, 2]),
        (1, [0]),
    ],
)
def test_spread_layers_are_up_to_six_from_the_first_to_the_last(
    depth: int, layers: list[int]
) -> None:
    assert select_layers(depth, "spread") == layers
