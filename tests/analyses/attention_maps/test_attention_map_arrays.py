from __future__ import annotations

import numpy as np
import pytest

from tests.analyses.attention.reference_attention import rollout
from tests.analyses.attention.softmax import attention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import (
    NAMES,
    Position,
    positions,
    query_maps,
    rollout_maps,
)
from vitfeat.errors import AnalysisError


def places(names: list[str], tokens: Tokens) -> dict[str, tuple[int, int] | None]:
    return {p.name: p.token for p in positions(names, tokens)}


SIDES = ["top", "left", "centre", "right", "bottom"]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((5, 5), [(0, 2), (2, 0), (2, 2), (2, 4), (4, 2)]),
        # Of two middle ones the lower or right one.
        ((4, 4), [(0, 2), (2, 0), (2, 2), (2, 3), (3, 2)]),
        ((14, 14), [(0, 7), (7, 0), (7, 7), (7, 13), (13, 7)]),
        ((3, 6), [(0, 3), (1, 0), (1, 3), (1, 5), (2, 3)]),
        ((6, 3), [(0, 1), (3, 0), (3, 1), (3, 2), (5, 1)]),
        ((1, 4), [(0, 2), (0, 0), (0, 2), (0, 3), (0, 2)]),
        ((4, 1), [(0, 0), (2, 0), (2, 0), (2, 0), (3, 0)]),
        ((1, 1), [(0, 0)] * 5),
    ],
)
def test_named_positions(grid: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    assert list(places(SIDES, Tokens(grid)).values()) == expected
    for row, column in expected:
        assert 0 <= row < grid[0]
        assert 0 <= column < grid[1]


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1)])
def test_the_diagonal_stays_in_the_grid(grid: tuple[int, int]) -> None:
    found = places(["diagonal"], Tokens(grid))
    assert list(found.values()) == [(i, i) for i in range(min(grid))]
    assert list(found) == [f"{i},{i}" for i in range(min(grid))]


def test_every_token_can_be_named_and_none_twice() -> None:
    tokens = Tokens((2, 3))
    found = places(["1,2", "mean", " 0 , 1", "diagonal", "0,0", "cls", "mean"], tokens)
    assert list(found.items()) == [
        ("1,2", (1, 2)),
        ("mean", None),
        ("0,1", (0, 1)),
        ("0,0", (0, 0)),
        ("1,1", (1, 1)),
        ("cls", None),
    ]


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("centr", Tokens((2, 3)), ["unknown position 'centr'", "did you mean 'centre'?"]),
        ("-1,0", Tokens((2, 3)), ["unknown position '-1,0'", "ROW,COLUMN"]),
        ("1,3", Tokens((2, 3)), ["'1,3' is outside", "rows are 0 to 1", "columns 0 to 2"]),
        ("2,0", Tokens((2, 3)), ["'2,0' is outside", "2 rows and 3 columns"]),
        ("cls", Tokens((2, 3), has_cls=False), ["no CLS token", "'mean'"]),
    ],
)
def test_positions_that_are_not_there(name: str, tokens: Tokens, words: list[str]) -> None:
    with pytest.raises(AnalysisError) as error:
        positions([name], tokens)
    for word in words:
        assert word in str(error.value)


KINDS_OF_TOKENS = [
    Tokens((3, 3)),
    Tokens((2, 5), n_registers=3),
    Tokens((4, 2), has_cls=False),
    Tokens((1, 4), has_cls=False, n_registers=1),
]


@pytest.mark.parametrize("tokens", KINDS_OF_TOKENS, ids=str)
@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maps_are_rows_of_the_attention(
    tokens: Tokens, renormalised: bool, dtype: type[np.floating]
) -> None:
    given = attention(2, 3, tokens=tokens).astype(dtype)
    before = given.copy()
    names = [n for n in NAMES if n != "cls" or tokens.has_cls]
    chosen = positions(names, tokens)
    found = query_maps(given, chosen, tokens, renormalised=renormalised)
    np.testing.assert_array_equal(given, before)
    rows, columns = tokens.grid
    prefix = tokens.n_prefix
    assert found.spatial.shape == (2, 1 + 3, len(chosen), rows, columns)
    for part in vars(found).values():
        # Before the heads stands their mean.
        np.testing.assert_allclose(part[:, 0], part[:, 1:].mean(axis=1), rtol=1e-12)
    # Plain loops, key by key.
    for layer in range(2):
        for head in range(3):
            for p, position in enumerate(chosen):
                if position.name == "mean":
                    queries = list(range(prefix, tokens.n_tokens))
                elif position.name == "cls":
                    queries = [0]
                else:
                    assert position.token is not None
                    queries = [prefix + position.token[0] * columns + position.token[1]]
                on_cls = on_registers = 0.0
                spatial = np.zeros(tokens.grid)
                for q in queries:
                    row = [float(v) for v in given[layer, head, q]]
                    on_cls += row[0] / len(queries) if tokens.has_cls else 0
                    on_registers += sum(row[int(tokens.has_cls) : prefix]) / len(queries)
                    total = sum(row[prefix:]) if renormalised else 1.0
                    for y in range(rows):
                        for x in range(columns):
                            share = row[prefix + y * columns + x] / total
                            spatial[y, x] += share / len(queries)
                at = found[layer, 1 + head, p]
                np.testing.assert_allclose(at.spatial, spatial, rtol=1e-12)
                np.testing.assert_allclose(at.on_cls, on_cls, rtol=1e-12)
                np.testing.assert_allclose(at.on_registers, on_registers, rtol=1e-12)
    if renormalised:
        np.testing.assert_allclose(found.spatial.sum((-1, -2)), 1, rtol=1e-6)
    else:
        whole = found.spatial.sum((-1, -2)) + found.on_cls + found.on_registers
        np.testing.assert_allclose(whole, 1, rtol=5e-3 if dtype is np.float16 else 1e-6)


def test_a_row_with_nothing_on_spatial_keys_is_a_map_of_zeros() -> None:
    tokens = Tokens((1, 2))
    given = np.array([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]])
    found = query_maps(given, positions(["0,0", "mean"], tokens), tokens, renormalised=True)
    np.testing.assert_array_equal(found.spatial[0, 0], [[0, 0]])
    # The mean is over both queries, the one with nothing counts as zero.
    np.testing.assert_array_equal(found.spatial[0, 1], [[0.5, 0]])
    np.testing.assert_array_equal(found.on_cls[0], [1, 0.75])


def test_one_hot_attention_is_found_where_it_is() -> None:
    tokens = Tokens((3, 4), n_registers=2)
    given = np.zeros((1, tokens.n_tokens, tokens.n_tokens))
    # Every query looks at the token one to the right, in the same row.
    for row in range(3):
        for column in range(4):
            query = 3 + row * 4 + column
            given[0, query, 3 + row * 4 + (column + 1) % 4] = 1
    given[0, :3, 1] = 1
    found = query_maps(given, positions(["1,2", "cls"], tokens), tokens)
    expected = np.zeros((3, 4))
    expected[1, 3] = 1
    np.testing.assert_array_equal(found.spatial[0, 0], expected)
    assert found.on_registers[0].tolist() == [0, 1]
    assert found.on_cls[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a[..., :-1], "is not of 7 tokens"),
        (lambda a: np.where(a == a.max(), np.nan, a), "negative or not finite"),
        (lambda a: a - 0.5, "negative or not finite"),
    ],
)
def test_what_is_no_attention(change: object, words: str) -> None:
    tokens = Tokens((2, 3))
    given = change(attention(2, tokens=tokens))  # type: ignore[operator]
    with pytest.raises(AnalysisError, match=words):
        query_maps(given, positions(["cls", "mean"], tokens), tokens)


@pytest.mark.parametrize("tokens", [t for t in KINDS_OF_TOKENS if t.has_cls], ids=str)
def test_the_rollout_of_every_layer_is_that_of_the_layers_up_to_it(tokens: Tokens) -> None:
    given = attention(4, 3, tokens=tokens)
    found = rollout_maps(given, tokens)
    for layer in range(4):
        flow = rollout(given[: layer + 1])
        on_grid = flow[0, tokens.n_prefix :].reshape(tokens.grid)
        np.testing.assert_allclose(found.spatial[layer], on_grid, rtol=1e-12)
        np.testing.assert_allclose(found.on_cls[layer], flow[0, 0], rtol=1e-12)
        on_registers = flow[0, tokens.registers].sum()
        np.testing.assert_allclose(found.on_registers[layer], on_registers, rtol=1e-12)


def test_positions_compare_by_what_they_are() -> None:
    assert positions(["top"], Tokens((3, 3))) == [Position("top", (0, 1))]
