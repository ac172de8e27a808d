"""Looking at candidate images, in parallel but in order, and at no more of them than are wanted."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from vitfeat.data.images import Facts, ImageError, facts_of, read_bytes
from vitfeat.data.listing import Candidate
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

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


def _look(names: list[str], settings: _Settings) -> list[Contents | ImageError]:
    """Read each image once. Errors are results: whether they matter is known only in order."""
    root, decode, min_side, max_megapixels = settings
    results: list[Contents | ImageError] = []
    for name in names:
        try:
            data = read_bytes(root / name, name)
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

    Parameters
    ----------
    candidates
        In the order to take them; consumed only as far as needed.
    spec
        Gives the limits, the root, and whether to decode: with ``on_error: skip`` images are
        decoded fully, else only their headers are read.
    workers
        Processes; 1 stays in the caller's.

    Yields
    ------
    tuple
        Each candidate that was looked at, in order, and its contents or what is wrong with it.

    Raises
    ------
    DataError
        If a worker dies.
    """
    wanted = Wanted(spec)
    settings = _Settings(spec.root, spec.on_error == "skip", spec.min_side, spec.max_megapixels)
    # In the caller's process each image is dealt with before the next is looked for.
    chunk, ahead = (1, 0) if workers == 1 else (_CHUNK, workers * _AHEAD)
    gathered: list[Candidate] = []
    under_way: deque[tuple[list[Candidate], Future[list[Contents | ImageError]]]] = deque()

    def send() -> None:
        if gathered:
            names = [candidate.image_id for candidate in gathered]
            under_way.append((gathered.copy(), executor.submit(_look, names, settings)))
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
