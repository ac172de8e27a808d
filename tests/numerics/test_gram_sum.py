"""Gram matrices of features put side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.analyses.cka import reference_cka as reference
from vitfeat.analyses.cka.compute import ESTIMATORS, cka
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import GramFile
from vitfeat.numerics.grams import GramSum

Make = Callable[..., GramFile]
Draw = Callable[..., np.ndarray]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("max_bytes", [1, 2**26])
def test_cka_of_a_sum_is_that_of_the_concatenation(
    make_file: Make, features: Draw, name: str, max_bytes: int
) -> None:
    # Two layers of three parts, one of them much larger, against two layers of a sum of one.
    parts = [[features(30, d) * scale for _ in range(2)] for d, scale in ((5, 1), (60, 3), (9, 1))]
    others = [features(30, 20), features(30, 7)]
    sides = [GramSum([make_file(p) for p in parts], "all"), GramSum([make_file(others)], "all")]
    found = cka(*sides, estimator=name, batch_size=30, max_bytes=max_bytes)
    for i in range(2):
        whole = np.concatenate([p[i] for p in parts], axis=1)
        for j, other in enumerate(others):
            hsic = reference.hsic0 if name == "biased" else reference.hsic1
            # One batch of all images is the debiased estimate, whatever each is scaled by.
            assert found[i, j] == pytest.approx(reference.cka(whole, other, hsic), abs=2e-6)


def test_a_sum_says_what_it_is(make_file: Make, features: Draw) -> None:
    parts = [make_file([features(8, 3)], tokens=kind) for kind in ("cls", "spatial")]
    whole = GramSum(parts, "all")
    assert (whole.meta.tokens, whole.meta.made_from, whole.meta.model) == ("all", "all", "m")
    assert (whole.layers, whole.n_images, whole.left_out) == ((0,), 8, False)
    assert whole.where == f"{parts[0].path} + {parts[1].path}"
    before = parts[0].block(0, 8).copy()
    whole.block(0, 8)
    np.testing.assert_array_equal(parts[0].block(0, 8), before)


def test_the_same_sum_is_alike(make_file: Make, features: Draw) -> None:
    parts = [make_file([features(12, d), features(12, d)]) for d in (3, 40)]
    found = cka(GramSum(parts, "all"), GramSum(parts, "all"))
    np.testing.assert_allclose(np.diag(found), 1, rtol=0, atol=1e-12)


def test_parts_that_do_not_add_up_fail(make_file: Make, features: Draw) -> None:
    one = make_file([features(8, 3)])
    for other, message in (
        (make_file([features(8, 3)], image_fingerprint="j"), "different images .i and j."),
        (make_file([features(9, 3)]), "different numbers of images .8 and 9."),
        (make_file([features(8, 3)] * 2), r"different layers .\(0,\) and \(0, 1\)."),
    ):
        with pytest.raises(AnalysisError, match=message):
            GramSum([one, other], "all")
    with pytest.raises(AnalysisError, match="needs one part"):
        GramSum([], "all")
