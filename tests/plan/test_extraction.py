"""Whether finished stores have what is asked today, by the commands that made them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vitfeat.config.parsing import parse_config
from vitfeat.plan.extraction import Extractions, holds

ALL = {
    "cka": {"tokens": ["cls", "all"]},
    "attention": {},
    "residual": {"images": 8},
    "regions": {},
}


def command(analyses: dict[str, Any], **extraction: Any) -> str:
    raw = {
        "models": ["demo-dino", "demo-mae"],
        "datasets": {"coco": {"layout": "coco", "root": "embedded", "split": "val2017"}},
        "analyses": {name: {"datasets": ["coco"], **given} for name, given in analyses.items()},
        "extraction": extraction,
    }
    wildcards: Any = SimpleNamespace(dataset="coco")
    return Extractions(parse_config(raw)).command(wildcards)


@pytest.mark.parametrize(
    "fewer",
    [
        {"cka": {"tokens": ["cls"]}},
        {"attention": {}},
        {"regions": {}},
        {"residual": {"images": 8}},
        {name: given for name, given in ALL.items() if name != "cka"},
    ],
)
def test_stores_hold_what_fewer_analyses_ask_for_and_not_the_other_way(
    fewer: dict[str, Any],
) -> None:
    assert holds(command(ALL), command(ALL))
    assert holds(command(ALL), command(fewer))
    assert not holds(command(fewer), command(ALL))


@pytest.mark.parametrize(
    "other",
    [
        {"taps": ["attention"]},
        {"layers": ["first", "last"]},
        {"dtype": "float32"},
        {"precision": "bf16"},
        {"keep_bits": 6},
        {"keep": ["cls"]},
    ],
)
def test_stores_of_other_settings_hold_nothing(other: dict[str, Any]) -> None:
    fewer = {"cka": {"tokens": ["cls"]}}
    assert not holds(command(ALL), command(fewer, **other))


def test_of_two_numbers_of_images_neither_is_part_of_the_other() -> None:
    some, fewer, every = (command({"residual": {"images": n}}) for n in (8, 4, None))
    assert not holds(some, fewer)
    assert not holds(some, every)
    assert holds(every, some)


def test_another_way_to_weigh_masks_is_another_store_where_regions_are_asked_for() -> None:
    paper = {**ALL, "regions": {"masks": "paper"}}
    assert not holds(command(ALL), command(paper))
    without = {name: given for name, given in paper.items() if name != "regions"}
    assert holds(command(ALL), command(without))
