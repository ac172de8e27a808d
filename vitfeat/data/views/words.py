"""A view in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def in_words(description: Mapping[str, Any]) -> str:
    """Return a view's ``describe()`` on one line for people, with what it leaves out of an image.

    Examples
    --------
    >>> in_words({"kind": "square", "size": [224, 224], "resize_to": 256,
    ...           "crop_fraction": 0.875, "interpolation": "bicubic"})
    'square: short side to 256, its centre 224 x 224 kept: 87.5 % of the short side; bicubic'
    >>> in_words({"kind": "padded", "size": [224, 224], "interpolation": "lanczos"})
    'padded: the whole image within 224 x 224, black around it; lanczos'
    """
    known = dict(description)
    kind = known.pop("kind")
    what = {"square": _square, "padded": _padded, "dense": _dense}.get(kind, lambda _: "")(known)
    interpolation = known.pop("interpolation", None)
    # What another version says beside these stands as it is.
    more = [f"{key} {value}" for key, value in known.items()]
    return f"{kind}: {'; '.join(str(part) for part in (what, interpolation, *more) if part)}"


def _square(known: dict[str, Any]) -> str:
    size = known.pop("size")
    fraction = known.pop("crop_fraction", 1.0)
    covered = [round(side / fraction) for side in size]
    resize_to = known.pop("resize_to", min(covered))
    resized = f"short side to {resize_to}"
    if size[0] != size[1]:
        resized = f"to the least size that covers {_by(covered)}"
    kept = f"{100 * min(size) / resize_to:.4g} %" if covered != list(size) else "all"
    side = "the short side" if size[0] == size[1] else "what is covered"
    return f"{resized}, its centre {_by(size)} kept: {kept} of {side}"


def _padded(known: dict[str, Any]) -> str:
    return f"the whole image within {_by(known.pop('size'))}, black around it"


def _dense(known: dict[str, Any]) -> str:
    side, pixels = known.pop("side"), known.pop("pixels")
    window = known.pop("window", None)
    passes = "in one pass" if window is None else f"in windows of {_by(window)}"
    return (
        f"the whole image, {side} side to {pixels}, both down to whole patches of "
        f"{_by(known.pop('patch'))}, {passes}"
    )


def _by(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))
