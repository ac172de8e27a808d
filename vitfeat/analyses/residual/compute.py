r"""What the skip connections of a block carry beside its branches.

A block adds two branches to what passes it by: :math:`z' = z + f(z)` for attention and
:math:`z'' = z' + g(z')` for the MLP. z and z' are the skip inputs, f(z) and g(z') the branch
outputs as they are added, behind whatever scales them. docs/analyses/residual.md has the
definitions.

Source: Raghu et al. 2021, "Do Vision Transformers see like convolutional neural networks?", who
compare the norms of skip and branch token by token; the CKA between skips and branches is that of
Walmer et al. 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import ResidualCkaRow, ResidualNormRow
from vitfeat.errors import AnalysisError
from vitfeat.numerics.accumulate import StreamingMoments
from vitfeat.numerics.gram import Read

Floats = NDArray[np.float64]

BRANCHES = ("attn", "mlp")
"""The two branches of a block, in the order in which they are added."""


def norm_ratios(
    skip: NDArray[Any], branch: NDArray[Any], *, has_cls: bool, n_registers: int
) -> dict[str, Floats]:
    r"""Ratios of norms, skip input over branch output, of every image and layer.

    With the tokens :math:`s_t` of the skip input, :math:`b_t` of the branch output, and S the
    spatial tokens:

    .. math::
        cls = \frac{|s_0|}{|b_0|}, \quad
        spatial = \frac{\sqrt{\sum_{t \in S} |s_t|^2}}{\sqrt{\sum_{t \in S} |b_t|^2}}, \quad
        spatial\_tokens = \frac{1}{|S|} \sum_{t \in S} \frac{|s_t|}{|b_t|}, \quad
        all = \frac{\sqrt{\sum_t |s_t|^2}}{\sqrt{\sum_t |b_t|^2}}

    ``spatial`` is the ratio of the Frobenius norms of all spatial tokens as one matrix: tokens of
    large norm decide it. In ``spatial_tokens`` every token counts alike. Registers are in neither;
    ``all`` is as ``spatial``, of all tokens together: CLS, registers, spatial.
    A ratio over a branch of norm exactly zero does not exist: it is NaN, and left out of the mean
    over tokens, which is over the others.

    `skip` and `branch` are L2 norms of every token, (image, layer, token), any float type: CLS
    first, then registers, then the grid. They are not changed.

    Returns by name float64 (image, layer), without unit; no ``cls`` where there is no CLS token.
    """
    if skip.shape != branch.shape or skip.ndim != 3:
        raise AnalysisError(
            f"norms of skip inputs {skip.shape} and of branch outputs {branch.shape} do not match: "
            "give both as (image, layer, token)"
        )
    n_prefix = int(has_cls) + n_registers
    if skip.shape[2] <= n_prefix:
        raise AnalysisError(
            f"{skip.shape[2]} tokens of which {n_prefix} stand before the grid leave no spatial "
            "token: check has_cls and n_registers"
        )
    skip, branch = (_checked(norms) for norms in (skip, branch))
    skip_grid, branch_grid = skip[:, :, n_prefix:], branch[:, :, n_prefix:]
    found = {"cls": _ratio(skip[:, :, 0], branch[:, :, 0])} if has_cls else {}
    found["spatial"] = _ratio(_frobenius(skip_grid), _frobenius(branch_grid))
    found["spatial_tokens"] = _mean_that_exists(_ratio(skip_grid, branch_grid))
    found["all"] = _ratio(_frobenius(skip), _frobenius(branch))
    return found


def _checked(norms: NDArray[Any]) -> Floats:
    values = np.asarray(norms, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise AnalysisError(
            "norms of skip inputs or branch outputs are negative or not finite: extract the tap "
            "residual_norms anew"
        )
    return values


def _frobenius(norms: Floats) -> Floats:
    return np.asarray(np.sqrt(np.einsum("ilt,ilt->il", norms, norms)))


def _ratio(skip: Floats, branch: Floats) -> Floats:
    exists = branch > 0
    return np.asarray(np.divide(skip, branch, out=np.full(skip.shape, np.nan), where=exists))


def _mean_that_exists(ratios: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    there = ~np.isnan(ratios)
    count = there.sum(axis=-1)
    total = ratios.sum(axis=-1, where=there)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def norm_rows(
    moments: Mapping[str, StreamingMoments], *, model: str, dataset: str, layers: Sequence[int]
) -> Iterator[ResidualNormRow]:
    """Rows of the ratios of :func:`norm_ratios`, averaged over images."""
    for branch, over_images in moments.items():
        means, deviations = over_images.means, over_images.deviations
        for ratio, counts in over_images.counts.items():
            for index, layer in enumerate(layers):
                yield ResidualNormRow(
                    model,
                    dataset,
                    branch,
                    ratio,
                    layer,
                    int(counts[index]),
                    float(means[ratio][index]),
                    float(deviations[ratio][index]),
                )


def summed(parts: Sequence[Read]) -> Read:
    """Give a reader of the sum of features, for :func:`~vitfeat.numerics.gram.gram`.

    The skip input of an MLP is the sum of its block's input and the attention branch.

    `parts` are one or more readers of features of the same shape, float16 or float32.

    It gives float32, added as such whatever the type of the parts. One part at a time is held
    beside the sum, no larger than it.
    """
    first, *others = parts

    def read(start: int, stop: int) -> NDArray[np.float32]:
        total = np.array(first(start, stop), dtype=np.float32)
        for other in others:
            total += other(start, stop)
        return total

    return read


def cka_rows(
    values: Floats,
    *,
    model: str,
    dataset: str,
    branch: str,
    tokens: str,
    layers: Sequence[int],
    n_images: int,
) -> Iterator[ResidualCkaRow]:
    """Rows of the CKA of every skip input with every branch output.

    `values` are (layer of the skip input, layer of the branch output).
    """
    for layer_skip, row in zip(layers, values, strict=True):
        for layer_branch, value in zip(layers, row, strict=True):
            yield ResidualCkaRow(
                model, dataset, branch, tokens, layer_skip, layer_branch, n_images, float(value)
            )
