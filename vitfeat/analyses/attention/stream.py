"""All attention metrics and maps over images, from one pass over attention or its summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.kernel import summarise
from vitfeat.analyses.attention.metrics import metrics
from vitfeat.analyses.attention.summary import NULLS, AttentionSummary, Floats, Null, Tokens
from vitfeat.analyses.attention.tokens import aligned_by_coverage, aligned_map, token_maps
from vitfeat.errors import AnalysisError
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
    n_images
        Number of images.
    means, deviations
        Of each metric of :func:`~vitfeat.analyses.attention.metrics.metrics` over images, the
        deviation with ddof 1 (NaN for fewer than two). Every image counts alike; but in the means
        of ``offset_x`` and ``offset_y`` without null rows every row of every image does: they are
        the centre of mass of the aligned map averaged over images. ``offset_length`` is there too:
        the length of the mean vector :math:`(\bar x, \bar y)`, and :math:`\sqrt{s_x^2 + s_y^2}`.
    counts
        Number of images that each has a value for.
    maps
        Means of :func:`~vitfeat.analyses.attention.tokens.token_maps`, ``aligned`` and
        ``aligned_by_coverage``.
    labels
        Class numbers, ascending; empty where averages by class were not asked for.
    class_maps
        Means of the token maps over the images of each class, (class, ..., head, ...).
    class_deviations
        Standard deviation over classes of those means, ddof 1, every class counting alike; empty
        with fewer than two classes.
    """

    n_images: int
    means: dict[str, Floats]
    deviations: dict[str, Floats]
    counts: dict[str, Counts]
    maps: dict[str, Floats]
    labels: tuple[int, ...]
    class_maps: dict[str, Floats]
    class_deviations: dict[str, Floats]


class StreamingAttention:
    """Takes in attention, or its summaries, batch by batch; every image counts alike.

    Sums over images are float64 whatever comes in. Neither the size nor the order of batches
    changes a result by more than float64's rounding, and parts made apart can be merged.

    Parameters
    ----------
    tokens
        How the tokens are ordered.
    patch_size
        Edge of a patch in pixels of the model's input; without it no length is in pixels.
    null, offset_null
        Rows without spatial attention count as zero (``zero``) or are left out (``exclude``), in
        distances and maps and in offsets.
    by_class
        Whether token maps are averaged by class too.

    Raises
    ------
    AnalysisError
        Unknown ``null``.
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
        for way in (null, offset_null):
            if way not in NULLS:
                raise AnalysisError(f"null rows cannot be {way!r}: choose {', '.join(NULLS)}")
        self.settings = (tokens, patch_size, null, offset_null, by_class)
        self._metrics = StreamingMoments()
        self._aligned = StreamingMeans()
        # Without classes all images are of one; the mean over images is the classes' together.
        self._tokens = ClassMeans()
        self._n_images = 0

    def update(
        self,
        batch: AttentionSummary | NDArray[Any],
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Take in some images; nothing is changed.

        Parameters
        ----------
        batch
            Attention after the softmax, (image, ..., head, query, key) of any float type, or the
            summaries of it. Dimensions after the first are those of the first batch.
        labels
            (image,): the class of each image, negative for none; needed by class.

        Raises
        ------
        AnalysisError
            Other shapes or tokens, values that are not finite, or labels that are absent or too
            many. Nothing is taken in then.
        """
        tokens, patch_size, null, offset_null, by_class = self.settings
        summary = batch if isinstance(batch, AttentionSummary) else summarise(batch, tokens)
        if summary.tokens != tokens:
            raise AnalysisError(
                f"summaries of {summary.tokens} in averages of {tokens}: average one model at a "
                "time"
            )
        if summary["n_null"].ndim < 2:
            raise AnalysisError("a batch without an image dimension: give (image, ..., head, ...)")
        if by_class and labels is None:
            raise AnalysisError("averages by class need a label for every image: give labels")
        n = len(summary["n_null"])
        part = StreamingAttention(
            tokens, patch_size=patch_size, null=null, offset_null=offset_null, by_class=by_class
        )
        part._n_images = n
        found = metrics(summary, patch_size=patch_size, null=null, offset_null=offset_null)
        if offset_null == "exclude":
            found[_SHARE] = summary.share_counted()
            found |= {w: np.nan_to_num(found[n]) * found[_SHARE] for n, w in _WEIGHTED.items()}
        part._metrics.update(found)
        aligned = {"aligned": aligned_map(summary, null=null)}
        if null != "zero":
            aligned[_ZERO] = summary["aligned"]
        part._aligned.update(aligned)
        classes = labels if by_class and labels is not None else np.zeros(n, dtype=np.int64)
        part._tokens.update(token_maps(summary, null=null), classes)
        self.merge(part)

    def merge(self, other: StreamingAttention) -> None:
        """Take in the images of another, which is not changed.

        Raises
        ------
        AnalysisError
            The other has other settings or shapes. Nothing is taken in then.
        """
        if other.settings != self.settings:
            raise AnalysisError(
                f"averages with settings {other.settings} cannot join ones with {self.settings}: "
                "give both the same"
            )
        # First those with the most dimensions to differ in: they raise before anything is added.
        self._tokens.merge(other._tokens)
        self._aligned.merge(other._aligned)
        self._metrics.merge(other._metrics)
        self._n_images += other._n_images

    def compute(self) -> AttentionAverages:
        """Return the averages so far.

        Raises
        ------
        AnalysisError
            There were no images.
        """
        if not self._n_images:
            raise AnalysisError("averages over no images are asked for: give at least one")
        means, deviations = self._metrics.means, self._metrics.deviations
        counts = self._metrics.counts
        if _SHARE in means:
            share = means[_SHARE]
            for name, weighted in _WEIGHTED.items():
                exists = share > 0
                mean = np.full(share.shape, np.nan)
                means[name] = np.divide(means[weighted], share, out=mean, where=exists)
            for part in (means, deviations, counts):
                for name in (_SHARE, *_WEIGHTED.values()):
                    del part[name]
        means["offset_length"] = np.hypot(means["offset_x"], means["offset_y"])
        deviations["offset_length"] = np.hypot(deviations["offset_x"], deviations["offset_y"])
        counts["offset_length"] = counts["offset_x"]
        maps = self._tokens.total().compute() | self._aligned.compute()
        maps["aligned_by_coverage"] = aligned_by_coverage(maps.pop(_ZERO, maps["aligned"]))
        classes = ClassMeans()
        if self.settings[-1]:
            classes = self._tokens.select(lambda label: label >= 0)
        return AttentionAverages(
            n_images=self._n_images,
            means=means,
            deviations=deviations,
            counts=counts,
            maps=maps,
            labels=classes.labels,
            class_maps=classes.compute() if classes.labels else {},
            class_deviations=classes.deviation() if len(classes.labels) > 1 else {},
        )
