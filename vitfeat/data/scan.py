"""Making an index: images are read in parallel but in order, and no more than are wanted."""

from __future__ import annotations

import hashlib
import logging
import math
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from vitfeat.data.containers import bytes_of
from vitfeat.data.folders import Tally
from vitfeat.data.images import (
    TRAITS,
    Facts,
    ImageError,
    facts_of,
    printable,
    turned_size,
)
from vitfeat.data.index import Box, Index, Place, Row, pixels_of
from vitfeat.data.layouts import find
from vitfeat.data.listing import Candidate, Listing, Noticed
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError, DataError
from vitfeat.text import plural

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Images of one call: sending it costs as much as reading a few headers.
_CHUNK = 16

# Calls under way for each worker: enough that none waits while the first is being waited for.
_AHEAD = 3


class Contents(NamedTuple):
    """What a usable image file holds."""

    facts: Facts
    n_bytes: int
    sha256: str


class _Settings(NamedTuple):
    root: Path
    decode: bool
    min_side: int
    max_megapixels: float


def _look(candidates: list[Candidate], settings: _Settings) -> list[Contents | ImageError]:
    """Read each image once. Errors are results: whether they matter is known only in order."""
    root, decode, min_side, max_megapixels = settings
    results: list[Contents | ImageError] = []
    for name, place in ((c.image_id, c.place) for c in candidates):
        try:
            data = bytes_of(root, name, place)
            facts = facts_of(
                data, name, decode=decode, min_side=min_side, max_megapixels=max_megapixels
            )
        except ImageError as error:
            results.append(error)
        else:
            results.append(Contents(facts, len(data), hashlib.sha256(data).hexdigest()))
    return results


class _InCaller(Executor):
    """Runs each call at once, in the process that asks for it."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(workers: int) -> Executor:
    if workers == 1:
        return _InCaller()
    # Not fork: the caller may run threads (numpy, Zarr), whose locks a forked child could find held
    # for ever. Not the fork server, which is one for the whole process: started here, it would be
    # without torch for the loader, whose workers would import it one by one. Costs 0.5 s.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


class Wanted:
    """How many images are wanted still, when those under way turn out well."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._per_class = spec.per_class
        self._limit = spec.limit
        self._taken: Counter[int] = Counter()
        self._total = 0

    def any(self) -> bool:
        """Whether any image is."""
        return self._limit is None or self._total < self._limit

    def of(self, label: int) -> bool:
        """Whether one of a class is."""
        return self.any() and (self._per_class is None or self._taken[label] < self._per_class)

    def take(self, label: int) -> None:
        """Count an image of a class."""
        self._taken[label] += 1
        self._total += 1

    def put_back(self, label: int) -> None:
        """Count it no more: it is unusable."""
        self._taken[label] -= 1
        self._total -= 1


def examine(
    candidates: Iterable[Candidate], spec: DatasetSpec, workers: int
) -> Iterator[tuple[Candidate, Contents | ImageError]]:
    """Look at candidates until ``limit``, and of each class until ``per_class``, are usable.

    Yields those that were looked at, in order, with their contents or what is wrong with them;
    candidates are consumed only as far as needed. With ``on_error: skip`` images are decoded fully,
    else only their headers are read.
    """
    wanted = Wanted(spec)
    settings = _Settings(spec.root, spec.on_error == "skip", spec.min_side, spec.max_megapixels)
    # In the caller's process each image is dealt with before the next is looked for.
    chunk, ahead = (1, 0) if workers == 1 else (_CHUNK, workers * _AHEAD)
    gathered: list[Candidate] = []
    under_way: deque[tuple[list[Candidate], Future[list[Contents | ImageError]]]] = deque()

    def send() -> None:
        if gathered:
            some = gathered.copy()
            under_way.append((some, executor.submit(_look, some, settings)))
            gathered.clear()

    def results() -> Iterator[tuple[Candidate, Contents | ImageError]]:
        chunk, future = under_way.popleft()
        for candidate, result in zip(chunk, future.result(), strict=True):
            if isinstance(result, ImageError):
                wanted.put_back(candidate.label)
            yield candidate, result

    with _executor(workers) as executor:
        try:
            for candidate in candidates:
                label = candidate.label
                if not wanted.of(label):
                    # Those under way would do, but a bad one among them frees a place.
                    send()
                    while under_way and not wanted.of(label):
                        yield from results()
                if not wanted.any():
                    break
                if wanted.of(label):
                    wanted.take(label)
                    gathered.append(candidate)
                if len(gathered) == chunk:
                    send()
                    while len(under_way) > ahead:
                        yield from results()
            send()
            while under_way:
                yield from results()
        except BrokenProcessPool:
            raise DataError(
                f"dataset {spec.name}: a process that reads images was killed, most often for want "
                "of memory; use fewer workers"
            ) from None
        finally:
            # The executor waits for its calls on leaving; those not begun need not run.
            for _, future in under_way:
                future.cancel()


def build_index(
    spec: DatasetSpec,
    *,
    workers: int = 1,
    candidates: Sequence[Candidate] | None = None,
) -> Index:
    """Find a dataset's images and look at each once.

    With ``on_error: skip`` every image is decoded fully, so that what stands in the index is known
    to decode. With ``on_error: stop`` the header is looked at: the extraction decodes anyway, and
    stops at an image that it cannot decode. `candidates` are images below the root in the place of
    those that the layout finds. The result is the same for any number of processes.
    """
    tally = Tally()
    seen = Noticed()
    if candidates is None:
        listing = find(spec, tally)
    else:
        listing = Listing(iter(candidates), has_labels=any(c.label >= 0 for c in candidates))
    if spec.per_class is not None and not listing.has_labels:
        raise ConfigError(f"datasets.{spec.name}.per_class: the images have no labels; use limit")
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    for candidate, result in examine(listing.candidates, spec, workers):
        if isinstance(result, Contents):
            orientation = result.facts.orientation if spec.orientation == "exif" else 1
            size = turned_size(result.facts.width, result.facts.height, orientation)
            at = candidate.place or Place("", "", 0)
            rows.append(
                Row(
                    image_id=candidate.image_id,
                    label=candidate.label,
                    class_name=candidate.class_name,
                    width=size[0],
                    height=size[1],
                    n_bytes=result.n_bytes,
                    sha256=result.sha256,
                    orientation=orientation,
                    crop=_within(spec, candidate, size, orientation),
                    container=at.container,
                    part=at.part,
                    offset=at.offset,
                )
            )
            for what in _seen(candidate, result.facts, rows[-1]):
                seen.add(what, candidate.image_id)
        elif spec.on_error == "stop":
            raise DataError(
                f"dataset {spec.name}: {result}; repair or remove the file, or set "
                f"datasets.{spec.name}.on_error: skip"
            )
        else:
            skipped.append((candidate.image_id, result.reason))
    if not rows:
        first, reason = skipped[0]
        raise DataError(
            f"dataset {spec.name}: none of its {len(skipped)} images can be used, the first is "
            f"{printable(first)}: {reason}"
        )
    index = Index.of(rows, [*skipped, *tally.doubles], [])
    index.notes.extend(
        [*seen.notes("image", _words(spec)), *_noticed(spec, index, skipped), *tally.notes()]
    )
    classes = index.n_classes or "no"
    logger.info(f"dataset {spec.name}: {plural(len(index), 'image')}, {classes} classes")
    for note in index.notes:
        logger.warning(f"dataset {spec.name}: {note}")
    return index


def _seen(candidate: Candidate, facts: Facts, row: Row) -> Iterator[str]:
    """Yield what of an image that is used changes its numbers."""
    yield from facts.traits
    if facts.orientation != 1:
        yield "orientation"
    if candidate.crop is not None and row.crop is not None:
        beyond = max(abs(a - b) for a, b in zip(candidate.crop, row.crop, strict=True))
        if beyond > 1:
            yield "cut"


def _words(spec: DatasetSpec) -> dict[str, str]:
    """Return how people are told of what :func:`_seen` gives."""
    if spec.orientation == "exif":
        orientation = "turned upright as the EXIF orientation says"
    else:
        annotated = ", and so is what is annotated in them" if spec.annotations else ""
        orientation = (
            "with an EXIF orientation, used as stored and not as viewers show them"
            f"{annotated} (datasets.{spec.name}.orientation: exif turns them)"
        )
    cut = "whose box reaches beyond the image, cut at its border"
    return {"orientation": orientation, **TRAITS, "cut": cut}


def _within(
    spec: DatasetSpec, candidate: Candidate, size: tuple[int, int], orientation: int
) -> Box | None:
    """Return the part of an image that is used, as far as it lies within the image."""
    if candidate.crop is None:
        return None
    name = printable(candidate.image_id)
    if orientation != 1:
        raise DataError(
            f"dataset {spec.name}: {name} is turned by its EXIF orientation {orientation}, and its "
            "box does not say whether it is of the turned image; set "
            f"datasets.{spec.name}.orientation: stored, or query_crop: whole"
        )
    width, height = size
    left, top, right, bottom = candidate.crop
    box = (
        max(0.0, float(left)),
        max(0.0, float(top)),
        min(float(width), float(right)),
        min(float(height), float(bottom)),
    )
    x0, y0, x1, y1 = pixels_of(box) if all(map(math.isfinite, box)) else (0, 0, 0, 0)
    if not (x0 < x1 and y0 < y1):
        raise DataError(
            f"{name}: the box {candidate.crop} holds no pixel of the image of {width} x {height}; "
            "correct the annotation"
        )
    return box


def _noticed(spec: DatasetSpec, index: Index, skipped: list[tuple[str, str]]) -> Iterator[str]:
    """Yield what is to be known of the images of an index."""
    if skipped:
        first, reason = skipped[0]
        yield (
            f"{plural(len(skipped), 'unusable image')} skipped, first {printable(first)}: {reason}"
        )
    copies: dict[str, list[str]] = {}
    for image_id, sha256 in zip(index.image_id, index.sha256, strict=True):
        copies.setdefault(sha256, []).append(image_id)
    repeated = [same for same in copies.values() if len(same) > 1]
    if repeated:
        yield (
            f"{plural(len(index) - len(copies), 'image')} byte-identical to others, which biases "
            f"measures of similarity, first {printable(repeated[0][1])} of "
            f"{printable(repeated[0][0])}"
        )
    if spec.per_class is not None and spec.limit is None:
        for name, count in Counter(index.class_name).items():
            if count < spec.per_class:
                yield f"class {printable(name)} has {plural(count, 'image')}, fewer than per_class"
