from __future__ import annotations

import numpy as np
import pytest

from tests.analyses.attention import reference_attention as reference
from vitfeat.analyses.attention.rollout import rollout_row
from vitfeat.errors import AnalysisError


def draw(*shape: int, sharpness: float = 2.0) -> np.ndarray:
    scores = np.exp(sharpness * np.random.default_rng(5).normal(size=shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def rollout(attention: np.ndarray) -> np.ndarray:
    """Rows of all queries."""
    return np.stack([rollout_row(attention, q) for q in range(attention.shape[-1])], axis=-2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (3, 2, 7, 7), (5, 3, 3, 3)])
def test_from_the_definition(shape: tuple[int, ...], dtype: type) -> None:
    attention = draw(*shape).astype(dtype)
    found = rollout(attention)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference.rollout(attention), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-13)


def test_many_images_at_once() -> None:
    attention = draw(4, 3, 2, 5, 5)
    found = rollout(attention)
    for image, values in enumerate(attention):
        np.testing.assert_allclose(found[image], rollout(values), rtol=1e-13)


def test_the_input_is_not_changed() -> None:
    attention = draw(3, 2, 4, 4)
    kept = attention.copy()
    attention.flags.writeable = False
    rollout_row(attention)
    np.testing.assert_array_equal(attention, kept)


# --- Closed forms ---


def test_identity() -> None:
    attention = np.broadcast_to(np.eye(5), (4, 3, 5, 5))
    np.testing.assert_array_equal(rollout(attention), np.eye(5))


def test_uniform_attention() -> None:
    """With U uniform, U U = U: L layers of (I + U) / 2 are 2^-L I + (1 - 2^-L) U."""
    found = rollout(np.full((6, 2, 8, 8), 1 / 8, dtype=np.float32))
    np.testing.assert_allclose(found, np.eye(8) / 64 + (1 - 1 / 64) / 8, rtol=1e-13)


def test_the_order_of_layers() -> None:
    """In the first layer b looks at c, in the second a at b: a has seen c, by no other order."""
    first, second = np.eye(3), np.eye(3)
    first[1], second[0] = [0, 0, 1], [0, 1, 0]
    found = rollout(np.stack([first, second])[:, None])
    np.testing.assert_allclose(found[0], [0.5, 0.25, 0.25])
    np.testing.assert_allclose(rollout(np.stack([second, first])[:, None])[0], [0.5, 0.5, 0])


def test_rows_are_renormalised() -> None:
    """Rounded rows do not sum to 1: (0.5 + 0.4) and 0.4 of a row are 9/13 and 4/13."""
    found = rollout(np.full((1, 1, 2, 2), 0.8))
    np.testing.assert_allclose(found, np.array([[9, 4], [4, 9]]) / 13, rtol=1e-15)


def test_what_has_no_rollout() -> None:
    for value in (np.nan, np.inf, -1.0):
        attention = draw(2, 2, 3, 3)
        attention[1, 0, 2, 2] = value
        with pytest.raises(AnalysisError, match=r"layer 1 .* negative or not finite"):
            rollout_row(attention)
