"""Frames of video files, at a rate: each is named by its time, ``clip.mp4#t=1.500``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vitfeat.data.containers import (
    Found,
    broken,
    containers_of,
    listing_of,
    opened,
    pixels_file,
    shown,
)
from vitfeat.data.folders import Tally
from vitfeat.data.index import Place
from vitfeat.data.listing import Listing
from vitfeat.data.spec import DatasetSpec
from vitfeat.text import plural

# Conversion to RGB that gives the same bytes on every processor.
_SCALING = "bitexact+accurate_rnd+full_chroma_int"

# Seconds that are decoded to reach a frame; one further off is jumped to.
_NEAR = 10


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the frames of all videos in the order of time, with the times that the files say."""
    import av

    found: list[Found] = []
    turned = 0
    for container in containers_of(spec):
        called = shown(spec, container)
        try:
            with av.open(spec.root / container) as file:
                stream = _stream(file)
                times = sorted(p.pts for p in file.demux(stream) if p.pts is not None and p.size)
                base, start = stream.time_base, times[0] if times else 0
            rotation = _Frames(spec.root / container).rotation()
        except (av.FFmpegError, OSError, ValueError, StopIteration) as error:
            raise broken(spec, container, error) from None
        turned += rotation != 0
        part = str(rotation) if spec.orientation == "exif" and rotation else "frame"
        for time in _at_rate(times, base, start, spec.rate):
            name = f"{called}#t={float((time - start) * base):.3f}"
            found.append(Found(name, name, None, Place(container, part, time)))
    if turned:
        how = "turned upright" if spec.orientation == "exif" else "used as stored, not as shown"
        tally.remarks.append(f"{plural(turned, 'video')} recorded turned, {how} (orientation)")
    return listing_of(spec, found, ordered=True)


def read(path: Path, place: Place) -> bytes:
    """Read a frame as the PPM file of its pixels."""
    pixels = opened(_Frames, path).at(place.offset)
    return pixels_file(np.rot90(pixels, int(place.part) // 90) if place.part != "frame" else pixels)


def _at_rate(times: list[int], base: Fraction, start: int, rate: float | None) -> Iterator[int]:
    """Yield the times of the frames at or next after every part of a second, each once."""
    if rate is None:
        yield from dict.fromkeys(times)
        return
    step = 1 / Fraction(rate).limit_denominator(10**6)
    due = Fraction(0)
    for time in times:
        at = (time - start) * base
        if at >= due:
            yield time
            due = (math.floor(at / step) + 1) * step


class _Frames:
    """Frames of a video by their time stamps: fast for those after the last one."""

    def __init__(self, path: Path) -> None:
        import av
        import av.filter

        self._file: Any = av.open(path)
        self._stream = _stream(self._file)
        self._decoded: Iterator[Any] = self._file.decode(self._stream)
        self._last: int | None = None
        self._graph: Any = av.filter.Graph()
        nodes = [
            self._graph.add_buffer(template=self._stream),
            self._graph.add("scale", flags=_SCALING),
            self._graph.add("format", "rgb24"),
            self._graph.add("buffersink"),
        ]
        for a, b in pairwise(nodes):
            a.link_to(b)
        self._graph.configure()

    def rotation(self) -> int:
        """Return by how many degrees, counter-clockwise, players turn the frames."""
        return int(next(self._decoded).rotation) % 360

    def at(self, time: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the pixels of the frame with a time stamp."""
        near = _NEAR / self._stream.time_base
        if self._last is None or not self._last < time <= self._last + near:
            self._file.seek(time, stream=self._stream)
            self._decoded = self._file.decode(self._stream)
        for frame in self._decoded:
            if frame.pts is not None and frame.pts >= time:
                break
        else:
            self._last = None
            raise EOFError(f"the video ends before its time stamp {time}")
        self._last = frame.pts
        if frame.pts != time:
            raise ValueError(f"no frame has the time stamp {time}")
        self._graph.push(frame)
        pixels: np.ndarray[Any, np.dtype[np.uint8]] = self._graph.pull().to_ndarray()
        return pixels


def _stream(file: Any) -> Any:
    if not file.streams.video:
        raise ValueError("no video in it")
    return file.streams.video[0]
