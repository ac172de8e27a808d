"""Which images a tap is kept for, and what that makes of a layout and of a request."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.store.filled import Content
from vitfeat.errors import ConfigError
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import plan_layout
from vitfeat.store.limits import kept_rows, spread
from vitfeat.store.provenance import differences, digest

B16 = Geometry(tuple(range(12)), 768, 12, (14, 14), has_cls=True, n_registers=0)
IDS = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "c/0.png"]


# --- Which rows ---


@pytest.mark.parametrize(
    ("count", "n_images", "rows"),
    [
        (1, 5, (2,)),
        (2, 5, (1, 3)),
        (3, 599, (99, 299, 499)),
        (4, 8, (1, 3, 5, 7)),
        (5, 5, (0, 1, 2, 3, 4)),
    ],
)
def test_rows_are_spread(count: int, n_images: int, rows: tuple[int, ...]) -> None:
    assert spread(count, n_images) == rows


@pytest.mark.parametrize(("count", "n_images"), [(1, 1), (7, 22), (500, 599), (999, 1000)])
def test_spread_rows_are_the_middles_of_equal_parts(count: int, n_images: int) -> None:
    rows = spread(count, n_images)
    assert len(rows) == count
    assert all(a < b for a, b in pairwise(rows))
    middles = [(i + 0.5) * n_images / count for i in range(count)]
    assert all(row <= middle < row + 1 for row, middle in zip(rows, middles, strict=True))


def test_limits_by_number_and_by_id() -> None:
    limits = {"attention": ["c/0.png", "a/1.png", "a/1.png"], "spatial": 2, "cls": 7}
    found = kept_rows(limits, ("cls", "spatial", "attention"), IDS)
    # A limit that all images are within is none; ids may repeat and stand in any order.
    assert found == {"spatial": (1, 3), "attention": (1, 4)}
    assert kept_rows({"attention": list(reversed(IDS)), "spatial": 5}, ("attention",), IDS) == {}
    # What a model does not have, as CLS, is not limited either.
    assert kept_rows({"cls": 2}, ("spatial",), IDS) == {}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (0, "limit of the tap attention: found 0; allowed: 1 or more images"),
        (-3, "limit of the tap attention: found -3; allowed: 1 or more images"),
        ([], "limit of the tap attention: names no image; leave it out"),
        (
            ["a/0.png", "b/2.pmg"],
            "limit of the tap attention: the dataset has no image 'b/2.pmg' (did you mean "
            "'b/1.png'?)",
        ),
        (["?"], "limit of the tap attention: the dataset has no image '?'"),
    ],
)
def test_limits_that_say_nothing(limit: int | list[str], words: str) -> None:
    with pytest.raises(ConfigError) as info:
        kept_rows({"attention": limit}, ("attention",), IDS)
    assert str(info.value) == words


# --- The layout ---


def test_arrays_of_some_images_do_not_make_blocks_smaller() -> None:
    taps = ("cls", "attention")
    every = plan_layout(B16, taps, 5000, "float16")
    some = plan_layout(B16, taps, 5000, "float16", {"attention": spread(3, 5000)})
    # 11.2 MB an image: 6 are 64 MiB. Three of 5000 weigh less than the 18 KB of CLS tokens.
    assert (every.block, some.block) == (4, 512)
    attention = some.arrays[1]
    assert attention.dims == ("attention_image", "layer", "head", "query", "key")
    assert attention.rows == (833, 2500, 4166)
    # Its shards are its own: four images fit into one, and four of a layer into a chunk.
    assert (some.shard_rows(attention), some.n_shards(attention)) == (4, 1)
    assert some.chunk_shape(attention) == (4, 1, 12, 197, 197)
    assert some.n_bytes == 5000 * 12 * 768 * 2 + 3 * attention.bytes_per_entry
    # Of CLS tokens a shard of 2,048 images is within 64 MiB: four blocks.
    assert some.shard_rows(some.arrays[0]) == 2048
    assert some.pieces_bytes == some.n_bytes


def test_many_of_few_images_are_bounded_as_all_are() -> None:
    taps = ("cls", "block_input")
    some = plan_layout(B16, taps, 599, "float16", {"block_input": spread(500, 599)})
    every = plan_layout(B16, taps, 599, "float16")
    assert some.block == every.block == 16
    assert some.bytes_of(16) < 64 * 2**20


@pytest.mark.parametrize("n_rows", [1, 8, 16, 22])
def test_entries_of_runs_of_rows(n_rows: int) -> None:
    content = Content(taps=("cls", "attention"), kept={"attention": (0, 5, 6, 7, 8, 21)})
    layout = content.layout
    cls, attention = layout.arrays
    assert (layout.length(cls), layout.length(attention)) == (22, 6)
    found: list[int] = []
    most = 0
    for start in range(0, 22, n_rows):
        rows = range(start, min(start + n_rows, 22))
        assert layout.entries(cls, rows) == rows
        entries = layout.entries(attention, rows)
        assert [(0, 5, 6, 7, 8, 21)[e] for e in entries] == [
            r for r in (0, 5, 6, 7, 8, 21) if r in rows
        ]
        found += entries
        most = max(most, len(entries))
    assert found == list(range(6))
    assert layout.most_entries(attention, n_rows) == most
    assert layout.most_entries(cls, n_rows) == min(n_rows, 22)
    assert layout.bytes_of(n_rows) == sum(
        layout.most_entries(a, n_rows) * int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize
        for a in layout.arrays
    )


# --- The request ---


def test_a_limit_is_part_of_the_request() -> None:
    plain = Content().request
    limited = Content(kept={"attention": (1, 2)}).request
    assert "limits" not in plain  # or earlier stores would count as made from other settings
    assert digest(plain) != digest(limited)


def _request(taps: list[str], **limits: int | list[str]) -> dict[str, object]:
    return {"taps": taps, **({"limits": limits} if limits else {})}


def test_all_images_serve_where_some_are_asked() -> None:
    every, some = _request(["cls", "attention"]), _request(["cls", "attention"], attention=3)
    assert differences(every, some) == ""
    assert differences(some, every) == "limits.attention: 3 in the store, nothing asked"
    assert differences(every, some, exact=True) == (
        "limits.attention: nothing in the store, 3 asked"
    )
    assert differences(some, some) == differences(some, some, exact=True) == ""


def test_another_limit_is_another_request() -> None:
    """Seven images that are spread are not among nine."""
    asked = _request(["attention"], attention=7)
    for limit in (9, 3, ["a.png"]):
        assert "limits.attention" in differences(_request(["attention"], attention=limit), asked)
    named = _request(["attention"], attention=["a.png", "b.png"])
    assert differences(named, _request(["attention"], attention=["a.png"])) != ""
    assert differences(named, named) == ""


def test_limits_of_taps_that_are_not_asked_for_do_not_matter() -> None:
    found = _request(["cls", "attention", "block_input"], attention=3, block_input=5)
    assert differences(found, _request(["cls"])) == ""
    assert differences(found, _request(["cls", "attention"], attention=3)) == ""
    assert differences(found, _request(["cls"]), exact=True) != ""
    # And a tap that is not there is missing, limited or not.
    words = differences(_request(["cls"]), _request(["cls", "attention"], attention=3))
    assert words == "taps: ['cls'] in the store, ['cls', 'attention'] asked"
