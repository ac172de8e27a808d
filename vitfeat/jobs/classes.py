"""Two stores of one model, of training and of test images, whose classes are matched by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.knn.compute import share_within
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import has_features, image_features
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural

logger = logging.getLogger(__name__)


UNKNOWN = -1
"""Class of a test image that no training image is of."""


@dataclass(frozen=True, eq=False)
class Part:
    """The images of a store that have a label: their rows, and classes as numbers."""

    store: FeatureStore
    rows: NDArray[np.intp]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.store.path.parent.name

    def features(
        self, kind: str, layer: int, start: int, stop: int, *, final_norm: bool = False
    ) -> NDArray[np.float32]:
        """Read features of images start:stop of these, float32 (image, channel)."""
        (position,) = self.store.layer_positions([layer])
        used = self.rows[start:stop]
        return image_features(self.store, kind, position, used, final_norm=final_norm)


@dataclass(frozen=True, eq=False)
class Pair:
    """Training and test images of a model; the training classes' names, sorted."""

    test: Part
    train: Part
    names: tuple[str, ...]

    def layers(self, wanted: Sequence[str | int]) -> list[int]:
        """Return numbers of layers of the test store; see :meth:`FeatureStore.layer_positions`.

        Numbers that are not stored are left out, and said.
        """
        store = self.test.store
        absent = [n for n in wanted if isinstance(n, int) and not store.has_layer(n)]
        for number in absent:
            logger.info(f"{store.model}: layer {number} is not stored; nothing to do")
        positions = store.layer_positions([n for n in wanted if n not in absent])
        return [store.layers[position] for position in positions]

    def kinds(self, features: Sequence[str], analysis: str) -> Iterator[str]:
        """Yield the features that the model has, which both stores must hold of all images."""
        stores = (self.test.store, self.train.store)
        return (kind for kind in features if has_features(stores, kind, analysis))

    def where(self, kind: str, layer: int) -> str:
        """Say what an error or a note is of."""
        return f"{self.test.store.model}, {self.test.dataset}, {kind}, layer {layer}"


def top_rows(
    row: Callable[..., ScoreRow], ranks: NDArray[np.int64], tops: Sequence[int]
) -> list[ScoreRow]:
    """Return rows of the shares of test images whose class is among the first so many."""
    return [row(score=f"top{top}", n=len(ranks), value=share_within(ranks, top)) for top in tops]


def open_pair(test_path: Path, train_path: Path) -> Pair:
    """Open two stores and match their classes.

    Labels are numbers of a dataset's own, so classes are matched by their names. Images without a
    label are left out. Test images of classes that no training image is of stay: they cannot be
    classified rightly. All this is said.
    """
    test, train = open_store(test_path), open_store(train_path)
    _check_alike(test, train)
    test_names, train_names = (_class_names(store) for store in (test, train))
    names = sorted(set(train_names.values()))
    number = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(test_names.values()) - set(names))
    if len(unknown) == len(set(test_names.values())):
        raise AnalysisError(
            f"{test.path} and {train.path}: no class is in both ({_some(unknown)}; "
            f"{_some(names)}); classes are matched by name, such as that of an image's folder"
        )
    pair = Pair(
        test=_part(test, {k: number.get(name, UNKNOWN) for k, name in test_names.items()}),
        train=_part(train, {k: number[name] for k, name in train_names.items()}),
        names=tuple(names),
    )
    unseen = sorted(set(names) - set(test_names.values()))
    notes = []
    if unknown:
        count = int((pair.test.classes == UNKNOWN).sum())
        notes.append(
            f"{plural(count, 'image')} of {pair.test.dataset} count as errors, of classes that "
            f"{pair.train.dataset} lacks ({_some(unknown)})"
        )
    if unseen:
        notes.append(
            f"{len(unseen)} of {len(names)} classes of {pair.train.dataset} have no image in "
            f"{pair.test.dataset} ({_some(unseen)})"
        )
    if notes:
        logger.warning(f"{test.model}: {'; '.join(notes)}")
    return pair


def _check_alike(test: FeatureStore, train: FeatureStore) -> None:
    both = f"{test.path} and {train.path}"
    if test.image_fingerprint == train.image_fingerprint:
        raise AnalysisError(
            f"{both}: test and training images are the same, so that each would find itself; take "
            "another dataset to learn from (`train`)"
        )
    for what, how in (("model", "one model, its weights the same"), ("view", "one view")):
        ours, theirs = (store.attributes["request"].get(what) or {} for store in (test, train))
        if ours != theirs:
            keys = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
            raise AnalysisError(
                f"{both}: they differ in {what} ({', '.join(keys)}), and features of test and "
                f"training images must be of {how}; extract them anew with the same settings"
            )


def _class_names(store: FeatureStore) -> dict[int, str]:
    labels, counts = np.unique(store.labels, return_counts=True)
    n_images = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    absent = n_images.pop(-1, 0)
    if not n_images:
        raise AnalysisError(
            f"{store.path}: none of {plural(store.n_images, 'image')} has a label, and images are "
            "classified from those of others; take a dataset with labels"
        )
    if absent:
        logger.warning(
            f"{store.model}: {absent:,} of {plural(store.n_images, 'image')} of "
            f"{store.path.parent.name} without a label: left out"
        )
    return {label: store.classes.get(label, str(label)) for label in n_images}


def _part(store: FeatureStore, numbers: dict[int, int]) -> Part:
    rows = np.flatnonzero(store.labels != -1)
    labels, place = np.unique(store.labels[rows], return_inverse=True)
    classes = np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)
    return Part(store, rows, classes[place])


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown}, ..." if len(names) > most else shown
