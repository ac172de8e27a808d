"""All attention metrics and maps over images, from one pass over attention or its summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.kernel import summarise
from vitfeat.analyses.attention.map_file import BY_CLASS, CLASS_DEVIATION
from vitfeat.analyses.attention.metrics import (
    aligned_by_coverage,
    aligned_map,
    metrics,
    token_maps,
)
from vitfeat.analyses.attention.summary import AttentionSummary, Floats, Null, Tokens
from vitfeat.numerics.accumulate import ClassMeans, Counts, StreamingMeans, StreamingMoments

# The aligned map whose null rows are zero, which coverage needs whatever ``null`` is.
_ZERO = "aligned, null rows as zero"

# What mean offsets are made of where null rows are left out: each times the share of the image's
# rows that count, and that share. The mean is then over all rows that count, of all images.
_SHARE = "share of rows that count"
_WEIGHTED = {name: f"{name} times that share" for name in ("offset_x", "offset_y")}


@dataclass(frozen=True)
class AttentionAverages:
    r"""Attention metrics and maps over images; arrays are (..., head, ...) unless said.

    Attributes
    ----------
    means, deviations
        Of each metric of :func:`~vitfeat.analyses.attention.metrics.metrics` over images, the
        deviation with ddof 1 (NaN for fewer than two). Every image counts alike; but in the means
        of ``offset_x`` and ``offset_y`` without null rows every row of every image does: they are
        the centre of mass of the aligned map averaged over images. ``offset_length`` is there too:
        the length of the mean vector :math:`(\bar x, \bar y)`, and :math:`\sqrt{s_x^2 + s_y^2}`.
    counts
        Number of images that each has a value for.
    maps
        Means of :func:`~vitfeat.analyses.attention.metrics.token_maps`, ``aligned`` and
        ``aligned_by_coverage``. With :data:`BY_CLASS` behind their names, means of the token maps
        over the images of each class, (class, ..., head, ...); with :data:`CLASS_DEVIATION` the
        standard deviation over classes of those means, ddof 1, every class counting alike, of two
        classes or more.
    labels
        Class numbers, ascending; empty where averages by class were not asked for.
    """

    means: dict[str, Floats]
    deviations: dict[str, Floats]
    counts: dict[str, Counts]
    maps: dict[str, Floats]
    labels: tuple[int, ...]


class StreamingAttention:
    """Takes in attention, or its summaries, batch by batch; every image counts alike.

    Sums over images are float64 whatever comes in. Neither the size nor the order of batches
    changes a result by more than float64's rounding.

    Without `patch_size`, the edge of a patch in pixels of the model's input, no length is in
    pixels. `null` and `offset_null` say what becomes of rows without spatial attention, in
    distances and maps and in offsets.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        patch_size: int | None = None,
        null: Null = "zero",
        offset_null: Null = "exclude",
        by_class: bool = False,
    ) -> None:
        self.tokens, self.patch_size = tokens, patch_size
        self.null, self.offset_null, self.by_class = null, offset_null, by_class
        self._metrics = StreamingMoments()
        self._aligned = StreamingMeans()
        # Without classes all images are of one; the mean over images is the classes' together.
        self._tokens = ClassMeans()

    def update(
        self,
        batch: AttentionSummary | NDArray[Any],
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Take in some images; nothing is changed.

        `batch` is attention after the softmax, (image, ..., head, query, key) of any float type, or
        the summaries of it; dimensions after the first are those of the first batch. `labels`,
        (image,), are the classes, negative for none; needed by class.
        """
        summary = batch if isinstance(batch, AttentionSummary) else summarise(batch, self.tokens)
        scores = metrics(
            summary, patch_size=self.patch_size, null=self.null, offset_null=self.offset_null
        )
        if self.offset_null == "exclude":
            scores[_SHARE] = summary.share_counted()
            scores |= {w: np.nan_to_num(scores[n]) * scores[_SHARE] for n, w in _WEIGHTED.items()}
        aligned = {"aligned": aligned_map(summary, null=self.null)}
        if self.null != "zero":
            aligned[_ZERO] = summary["aligned"]
        if labels is None or not self.by_class:
            labels = np.zeros(len(summary["n_null"]), dtype=np.int64)
        self._tokens.update(token_maps(summary, null=self.null), labels)
        self._aligned.update(aligned)
        self._metrics.update(scores)

    def compute(self) -> AttentionAverages:
        """Return the averages over all images so far."""
        maps = self._tokens.total().compute() | self._aligned.compute()
        means, deviations = self._metrics.means, self._metrics.deviations
        counts = self._metrics.counts
        if _SHARE in means:
            share = means[_SHARE]
            for name, weighted in _WEIGHTED.items():
                mean = np.full(share.shape, np.nan)
                means[name] = np.divide(means[weighted], share, out=mean, where=share > 0)
            for part in (means, deviations, counts):
                for name in (_SHARE, *_WEIGHTED.values()):
                    del part[name]
        means["offset_length"] = np.hypot(means["offset_x"], means["offset_y"])
        deviations["offset_length"] = np.hypot(deviations["offset_x"], deviations["offset_y"])
        counts["offset_length"] = counts["offset_x"]
        maps["aligned_by_coverage"] = aligned_by_coverage(maps.pop(_ZERO, maps["aligned"]))
        classes = ClassMeans()
        if self.by_class:
            classes = self._tokens.select(lambda label: label >= 0)
        if classes.labels:
            maps |= {f"{name}{BY_CLASS}": values for name, values in classes.compute().items()}
        if len(classes.labels) > 1:
            between = classes.deviation().items()
            maps |= {f"{name}{CLASS_DEVIATION}": values for name, values in between}
        return AttentionAverages(means, deviations, counts, maps, classes.labels)
