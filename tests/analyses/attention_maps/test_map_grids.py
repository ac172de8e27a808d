from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.analyses.attention.softmax import attention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import positions
from vitfeat.analyses.attention_maps.grids import (
    KINDS,
    Grid,
    ImageMaps,
    grid,
    image_maps,
    table,
)
from vitfeat.errors import AnalysisError

TOKENS = Tokens((2, 3), n_registers=1)
NAMES = ("cls", "1,2", "mean")
GIVEN = attention(3, 4, tokens=TOKENS)


def maps(
    tokens: Tokens = TOKENS,
    names: Sequence[str] = NAMES,
    layers: Sequence[int] = (0, 1, 2),
    **more: bool,
) -> ImageMaps:
    given = attention(3, 4, tokens=tokens)
    chosen = positions(names, tokens)
    picture = np.zeros((2, 3, 3), np.uint8)
    return image_maps(
        "a/b.png", lambda place: given[place], layers, tokens, chosen, picture=picture, **more
    )


def expected(layer: int, head: int | None, query: int | str) -> np.ndarray:
    rows = GIVEN[layer].mean(0) if head is None else GIVEN[layer, head]
    row = rows[2:].mean(0) if query == "mean" else rows[int(query)]
    return row[2:].reshape(2, 3)


QUERIES = {"cls": 0, "1,2": 2 + 5, "mean": "mean"}


def check(found: Grid) -> None:
    assert found.maps.spatial.shape[:2] == (len(found.cells), len(found.cells[0]))
    for r, line in enumerate(found.cells):
        for c, (layer, head, position) in enumerate(line):
            if position.name != "rollout":
                right = expected(layer, head, QUERIES[position.name])
                np.testing.assert_allclose(found.maps.spatial[r, c], right, rtol=1e-12)


def names_of(found: Grid) -> list[tuple[int | None, str]]:
    return [(line[0].head, line[0].position.name) for line in found.cells]


def test_positions_by_layers() -> None:
    found = grid("position_layer", maps())
    check(found)
    assert names_of(found) == [(None, "cls"), (None, "1,2"), (None, "mean"), (None, "rollout")]
    assert [[cell.layer for cell in line] for line in found.cells] == [[0, 1, 2]] * 4


def test_positions_by_layers_of_one_head_have_no_rollout() -> None:
    found = grid("position_layer", maps(), head=2)
    check(found)
    assert names_of(found) == [(2, "cls"), (2, "1,2"), (2, "mean")]


def test_heads_by_positions() -> None:
    found = grid("head_position", maps(), layer=1)
    check(found)
    assert names_of(found) == [(head, "cls") for head in (None, 0, 1, 2, 3)]
    assert {cell.layer for line in found.cells for cell in line} == {1}
    assert [cell.position.name for cell in found.cells[0]] == ["cls", "1,2", "mean"]
    last = grid("head_position", maps())
    assert {cell.layer for line in last.cells for cell in line} == {2}


def test_heads_by_layers() -> None:
    found = grid("head_layer", maps(), position="1,2")
    check(found)
    assert names_of(found) == [(head, "1,2") for head in (None, 0, 1, 2, 3)]
    assert [cell.layer for cell in found.cells[0]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "wanted", "shown"),
    [
        (("cls", "mean"), "mean", "mean"),
        (("top", "mean"), "cls", "mean"),
        (("top", "left"), "cls", "top"),
        (("diagonal", "top"), "diagonal", "0,0"),
    ],
)
def test_what_stands_in_for_a_query(names: Sequence[str], wanted: str, shown: str) -> None:
    found = grid("head_layer", maps(names=names), position=wanted)
    assert found.cells[0][0].position.name == shown


@pytest.mark.parametrize(
    ("tokens", "layers", "there"),
    [
        (TOKENS, (0, 1, 2), True),
        (TOKENS, (0, 2, 3), False),
        (TOKENS, (1, 2, 3), False),
        (Tokens((2, 3), has_cls=False), (0, 1, 2), False),
    ],
)
def test_when_there_is_a_rollout(tokens: Tokens, layers: Sequence[int], there: bool) -> None:
    found = maps(tokens, ["mean"], layers)
    assert (found.rollout is not None) is there
    rows = [line[0].position.name for line in grid("position_layer", found).cells]
    assert ("rollout" in rows) is there


def test_layers_go_by_their_numbers() -> None:
    found = grid("head_position", maps(layers=(3, 5, 8)), layer=5)
    assert found.cells[0][0].layer == 5
    np.testing.assert_allclose(found.maps.spatial[1, 0], expected(1, 0, 0))


@pytest.mark.parametrize("head", [4, -1])
def test_a_head_that_is_not_there(head: int) -> None:
    words = f"head {head} is not there: the model has 4, 0 to 3"
    with pytest.raises(AnalysisError, match=words):
        grid("position_layer", maps(), head=head)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("renormalised", [False, True])
def test_the_table_has_every_key_of_every_map(kind: str, renormalised: bool) -> None:
    found = grid(kind, maps(renormalised=renormalised))
    rows = list(table(found))
    cells = sum(len(line) for line in found.cells)
    assert len(rows) == cells * (2 * 3 + 2)
    assert {row.image for row in rows} == {"a/b.png"}
    for row in rows[: 2 * 8]:
        at = [
            (r, c)
            for r, line in enumerate(found.cells)
            for c, cell in enumerate(line)
            if (cell.layer, cell.head, cell.position.name) == (row.layer, row.head, row.position)
        ]
        assert len(at) == 1
        one = found.maps[at[0]]
        if row.key == "cls":
            value = float(one.on_cls)
        elif row.key == "registers":
            value = float(one.on_registers)
        else:
            assert row.key == ("spatial_renormalised" if renormalised else "spatial")
            assert row.row is not None
            assert row.column is not None
            value = float(one.spatial[row.row, row.column])
        assert row.attention == pytest.approx(value, rel=1e-7)
    sums: dict[tuple[object, ...], float] = {}
    for row in rows:
        if not renormalised or row.key == "spatial_renormalised":
            key = (row.layer, row.head, row.position)
            sums[key] = sums.get(key, 0) + row.attention
    assert all(total == pytest.approx(1, rel=1e-6) for total in sums.values())


def test_the_rollout_is_never_renormalised() -> None:
    rows = list(table(grid("position_layer", maps(renormalised=True))))
    assert {row.key for row in rows if row.position == "rollout"} == {"spatial", "cls", "registers"}


def test_tables_leave_out_tokens_that_a_model_lacks() -> None:
    found = grid("head_layer", maps(Tokens((2, 3), has_cls=False), ["mean"]))
    assert {row.key for row in table(found)} == {"spatial"}
