from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.analyses.attention.reference_attention import Reference, deviation
from vitfeat.analyses.attention.kernel import summarise
from vitfeat.analyses.attention.map_file import (
    BY_CLASS,
    CLASS_DEVIATION,
    OFFSET_MAPS,
    TOKEN_MAPS,
)
from vitfeat.analyses.attention.metrics import metrics
from vitfeat.analyses.attention.stream import AttentionAverages, StreamingAttention
from vitfeat.analyses.attention.summary import AttentionSummary, Tokens
from vitfeat.errors import AnalysisError

IMAGES = 13
LABELS = np.array([4, -1, 0, 4, 4, 9, 0, 0, -1, 9, 9, 9, 0])
PATCH = 16
NULLS = ("zero", "exclude")
MODELS = [
    Tokens((2, 3)),
    Tokens((3, 2), n_registers=2),
    Tokens((2, 2), has_cls=False),
    Tokens((1, 3), has_cls=False, n_registers=1),
    Tokens((1, 1)),
]


def draw(tokens: Tokens, heads: int = 2, layers: int = 2, dtype: str = "float32") -> np.ndarray:
    """(image, layer, head, query, key), some rows with nothing on spatial keys."""
    generator = np.random.default_rng(heads)
    shape = (IMAGES, layers, heads, tokens.n_tokens, tokens.n_tokens)
    scores = np.exp(2 * generator.normal(size=shape))
    if tokens.n_prefix:
        scores[::3, 0, 0, tokens.n_prefix :: 2, tokens.n_prefix :] = 0
        scores[5, -1, -1, tokens.n_prefix :, tokens.n_prefix :] = 0
    return (scores / scores.sum(-1, keepdims=True)).astype(dtype)


def stream(tokens: Tokens, null: str = "zero", by_class: bool = True) -> StreamingAttention:
    return StreamingAttention(tokens, patch_size=PATCH, null=null, by_class=by_class)


def numbers(found: AttentionAverages) -> Iterator[tuple[str, np.ndarray]]:
    for part in ("means", "deviations", "counts", "maps"):
        for name, values in getattr(found, part).items():
            yield f"{part} of {name}", values


def check(found: AttentionAverages, expected: AttentionAverages, **close: Any) -> None:
    assert found.labels == expected.labels
    ours, theirs = dict(numbers(found)), dict(numbers(expected))
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, err_msg=name, **close)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("tokens", MODELS, ids=str)
def test_attention_and_its_summaries_agree(tokens: Tokens, heads: int, null: str) -> None:
    """For every metric and map: summaries of PyTorch's, as stores keep them, and the kernel's."""
    import torch

    from vitfeat.extraction import summary as stored

    attention = draw(tokens, heads)
    flat = torch.from_numpy(attention.reshape(-1, *attention.shape[2:]))
    arrays = {
        name: tensor.numpy().reshape(IMAGES, 2, *tensor.shape[1:])
        for name, tensor in stored.summarise(flat, tokens.n_prefix, tokens.grid).items()
    }
    straight, from_summaries = stream(tokens, null), stream(tokens, null)
    straight.update(attention, LABELS)
    from_summaries.update(AttentionSummary(arrays, tokens), LABELS)
    check(straight.compute(), from_summaries.compute(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_batches_and_order_do_not_matter(size: int, null: str) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(tokens)
    whole, parts = stream(tokens, null), stream(tokens, null)
    whole.update(attention, LABELS)
    order = np.random.default_rng(size).permutation(IMAGES)
    for start in range(0, IMAGES, size):
        rows = order[start : start + size]
        parts.update(attention[rows], LABELS[rows])
    check(parts.compute(), whole.compute(), rtol=1e-11, atol=1e-13)


def test_each_class_is_as_if_it_were_alone() -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(tokens)
    both = stream(tokens)
    both.update(attention, LABELS)
    found = both.compute()
    assert found.labels == (0, 4, 9)
    for position, label in enumerate(found.labels):
        alone = stream(tokens, by_class=False)
        alone.update(attention[label == LABELS])
        for name in TOKEN_MAPS:
            values = found.maps[name + BY_CLASS][position]
            np.testing.assert_allclose(values, alone.compute().maps[name], rtol=1e-12)
    for name in TOKEN_MAPS:
        spread = np.apply_along_axis(deviation, 0, found.maps[name + BY_CLASS])
        between = found.maps[name + CLASS_DEVIATION]
        np.testing.assert_allclose(between, spread, rtol=1e-9, atol=1e-15)
    # Images without a class are in the mean over all.
    everything = stream(tokens, by_class=False)
    everything.update(attention)
    without = everything.compute()
    assert without.labels == ()
    assert set(without.maps) == {*TOKEN_MAPS, *OFFSET_MAPS}
    for name, values in without.maps.items():
        np.testing.assert_allclose(found.maps[name], values, rtol=1e-12)


def test_float16_over_thousands_of_batches() -> None:
    """Sums of float16 would stand still at 2048, and at 256 for numbers near 0.1."""
    tokens = Tokens((2, 2))
    attention = draw(tokens, layers=1, dtype="float16")[:2]
    total = stream(tokens, by_class=False)
    for _ in range(2500):
        total.update(attention)
    found = total.compute()
    truth = [Reference(image[0], (2, 2), True, 0) for image in attention]
    scalars = [t.metrics("zero", PATCH) for t in truth]
    maps = [t.token_maps("zero") | {"aligned": t.aligned("zero")} for t in truth]
    for kind, expected in ((found.means, scalars), (found.maps, maps)):
        for name in expected[0]:
            rows = np.ones((2, *expected[0][name].shape))
            if name.startswith("offset"):
                # Every row counts alike that looks at a spatial token.
                rows = 4 - np.stack([s["n_null"] for s in scalars])
            mean = np.average([e[name] for e in expected], axis=0, weights=rows)
            np.testing.assert_allclose(kind[name][0], mean, rtol=2e-5, atol=1e-6, err_msg=name)
    for name in scalars[0]:
        # Two values, 2500 times each: their half distance, but for n - 1.
        half = np.abs(scalars[0][name] - scalars[1][name]) / 2 * np.sqrt(5000 / 4999)
        found_deviation = found.deviations[name][0]
        np.testing.assert_allclose(found_deviation, half, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nothing_is_changed(dtype: str, null: str) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(tokens, dtype=dtype)
    kept = attention.copy()
    summary = summarise(attention, tokens)
    for array in (attention, *summary.arrays.values()):
        array.flags.writeable = False
    total = stream(tokens, null)
    total.update(attention, LABELS)
    total.update(summary, LABELS)
    np.testing.assert_array_equal(attention, kept)


def test_layers_stay_apart() -> None:
    tokens = Tokens((2, 3))
    attention = draw(tokens)
    both = stream(tokens)
    both.update(attention, LABELS)
    for layer in range(2):
        one = stream(tokens)
        one.update(attention[:, layer], LABELS)
        expected = dict(numbers(one.compute()))
        for name, values in numbers(both.compute()):
            own = values[:, layer] if name.endswith(BY_CLASS) else values[layer]
            np.testing.assert_allclose(own, expected[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_the_length_of_the_mean_offset() -> None:
    """Two images whose offsets are opposite: no mean vector, and a spread."""
    attention = np.zeros((2, 1, 2, 2), dtype=np.float32)
    attention[0, 0] = [[0, 1], [0, 1]]
    attention[1, 0] = [[1, 0], [1, 0]]
    total = stream(Tokens((1, 2), has_cls=False), by_class=False)
    total.update(attention)
    found = total.compute()
    assert found.means["offset_length"].tolist() == [0]
    assert found.means["distance_patches"].tolist() == [0.5]
    # x is 0.5 and -0.5: deviation sqrt(2) / 2; y is 0.
    assert found.deviations["offset_length"] == pytest.approx(np.sqrt(0.5), rel=1e-12)


def test_the_mean_offset_is_the_centre_of_mass_of_the_mean_aligned_map() -> None:
    """By hand: one image without null rows, one with two of three; as the paper's code has it."""
    tokens = Tokens((1, 3))
    attention = np.zeros((2, 1, 4, 4), dtype=np.float32)
    for image, keys in enumerate([(0, 2, 3, 3), (0, 3, 0, 0)]):
        for query, key in enumerate(keys):
            attention[image, 0, query, key] = 1
    found = {}
    for null in NULLS:
        total = StreamingAttention(tokens, offset_null=null)
        # Every row counts alike, whatever the batches.
        for image in attention:
            total.update(image[None])
        found[null] = total.compute()
    # Offsets 1, 1, 0 and 2: four rows count, and six where null rows are zeros.
    assert found["exclude"].means["offset_x"] == pytest.approx([4 / 4])
    assert found["zero"].means["offset_x"] == pytest.approx([4 / 6])
    assert found["exclude"].means["offset_length"] == pytest.approx([1])
    # The images' own are 2/3 and 2, and 2/3 and 2/3.
    assert found["exclude"].deviations["offset_x"] == pytest.approx([(4 / 3) / np.sqrt(2)])
    assert found["zero"].deviations["offset_x"] == pytest.approx([0], abs=1e-7)
    for averages in found.values():
        aligned = averages.maps["aligned"][0, 0]
        assert aligned.sum() == pytest.approx(4 / 6)
        assert set(averages.means) == set(averages.deviations) == set(averages.counts)
        assert averages.means["distance_patches"] == pytest.approx([4 / 6])
    centre = (aligned * np.arange(-2, 3)).sum() / aligned.sum()
    assert found["exclude"].means["offset_x"] == pytest.approx([centre])


def test_a_head_with_nothing_but_null_rows_has_no_offset() -> None:
    attention = np.zeros((2, 2, 3, 3), dtype=np.float32)
    attention[:, :, :, 0] = 1
    attention[0, 1, 1] = [0, 0, 1]
    total = StreamingAttention(Tokens((1, 2)))
    total.update(attention)
    found = total.compute()
    assert np.isnan(found.means["offset_x"]).tolist() == [True, False]
    assert found.means["offset_x"][1] == 1
    assert found.counts["offset_x"].tolist() == found.counts["offset_length"].tolist() == [0, 1]
    assert found.means["distance_patches"].tolist() == [0, 0.25]


def test_the_kernel_on_any_leading_dimensions() -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(tokens, heads=3)
    whole = metrics(summarise(attention, tokens))
    one = metrics(summarise(attention[3, 1], tokens))
    turned = metrics(summarise(attention.swapaxes(0, 1), tokens))
    for name, values in whole.items():
        # A product of matrices may round otherwise where there are more rows.
        np.testing.assert_allclose(values[3, 1], one[name], rtol=1e-14)
        np.testing.assert_allclose(values, turned[name].swapaxes(0, 1), rtol=1e-14)


# --- Errors ---


def test_batches_that_do_not_fit() -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(tokens)
    total = stream(tokens)
    total.update(attention, LABELS)
    broken = attention.copy()
    broken[3, 1, 0, 4, 2] = np.nan
    cases: list[tuple[Any, Any, str]] = [
        (attention[..., 1:], LABELS, r"not \(..., head, query, key\) of 8 tokens"),
        (attention[:, :, :0], LABELS, "not"),
        (attention[:, 0], LABELS, "shape"),
        (attention[:, :, :1], LABELS, "shape|none"),
        (attention, LABELS[:-1], "one label an image"),
        (broken, LABELS, "not finite"),
    ]
    for batch, labels, message in cases:
        with pytest.raises(AnalysisError, match=message):
            total.update(batch, labels)
    with pytest.raises(AnalysisError, match="over no images"):
        stream(tokens).compute()
