from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.filled import Content
from vitfeat.store.provenance import differences, digest, versions

REQUEST = Content().request


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _changed(path: tuple[str, ...]) -> dict[str, Any]:
    request = copy.deepcopy(REQUEST)
    node = request
    for key in path[:-1]:
        node = node[key]
    value = node[path[-1]]
    node[path[-1]] = [*value, "more"] if isinstance(value, list) else f"{value}!"
    return request


@pytest.mark.parametrize("path", list(_leaves(REQUEST)), ids=".".join)
def test_every_field_counts(path: tuple[str, ...]) -> None:
    other = _changed(path)
    assert digest(other) != digest(REQUEST)
    words = differences(REQUEST, other)
    assert words.startswith(f"{'.'.join(path)}: ")
    assert " in the store, " in words
    assert words.endswith(" asked")
    assert ";" not in words


def test_the_fingerprint_is_a_hash_of_the_sorted_json() -> None:
    expected = hashlib.sha256(
        json.dumps(REQUEST, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()
    assert digest(REQUEST) == expected
    assert digest(dict(reversed(REQUEST.items()))) == expected


def test_differences_in_words() -> None:
    assert differences(REQUEST, copy.deepcopy(REQUEST)) == ""
    other = {**REQUEST, "dtype": "float32", "extra": 1}
    other["model"] = {**REQUEST["model"], "weights_sha256": "0123456789abcdef" * 4, "args": {}}
    assert differences(REQUEST, other) == (
        "dtype: float16 in the store, float32 asked; "
        "extra: nothing in the store, 1 asked; "
        "model.args.depth: 5 in the store, nothing asked; "
        "model.weights_sha256: abababababab… in the store, 0123456789ab… asked"
    )


def test_tuples_are_the_lists_that_json_makes_of_them() -> None:
    assert differences({"layers": [1, 2]}, {"layers": (1, 2)}) == ""


def test_more_taps_than_asked_are_no_difference_unless_it_matters() -> None:
    some, more = {"taps": ["cls"]}, {"taps": ["cls", "spatial"]}
    assert differences(more, some) == ""
    assert differences(some, more) == "taps: ['cls'] in the store, ['cls', 'spatial'] asked"
    assert differences(more, some, exact=True) != ""
    assert differences(more, more, exact=True) == ""


def test_summaries_of_another_definition_are_a_difference() -> None:
    """Where summaries are asked for: a store that holds some serves others as well."""
    without, held = {"taps": ["cls"]}, {"taps": ["attention_summary", "cls"], "summaries": 2}
    before = {"taps": ["attention_summary", "cls"]}
    assert differences(held, without) == ""
    assert differences(before, held) == "summaries: nothing in the store, 2 asked"
    assert differences(held, without, exact=True) != ""


def test_versions() -> None:
    import torch
    import zarr

    found = versions()
    assert found["zarr"] == zarr.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"vitfeat", "timm", "open_clip_torch", "numpy", "torchvision"} <= set(found)
