"""Views: how an image becomes the array that a model sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from vitfeat.errors import DataError
from vitfeat.settings.fields import Count, Fraction
from vitfeat.settings.part import Part

Interpolation = Literal["bicubic", "bilinear", "lanczos"]
Kind = Literal["square", "padded", "dense"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters, antialiased."""

# A strip of 8 x 1 000 000 pixels passes as an image, but with its short side at 224 it would take
# 19 GB. Photographs and panoramas stay far below this many pixels.
_MAX_RESIZED_PIXELS = 2**28

# DAVIS is followed at this short side by DINO's successors; the paper's dense features are, too.
_SHORT_SIDE = 448


class View(Protocol):
    """How an image becomes the array that a model sees."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return height and width in pixels of what an image of `width` x `height` becomes."""

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the rectangle of an image that the result shows.

        Every token of the result is a rectangle of the same size in it.

        Parameters
        ----------
        width, height
            Size of the image in pixels.

        Returns
        -------
        tuple of float
            Left, top, right, bottom in the image's pixels, where it spans
            ``(0, 0, width, height)``; beyond it where the result is padded.
        """

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view to an image of mode RGB: uint8, shape (height, width, 3).

        Raises
        ------
        DataError
            If the image is so elongated that resizing it would need gigabytes.
        ValueError
            If the image is not RGB.
        """

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""


def _check_filter(interpolation: str) -> None:
    if interpolation not in FILTERS:
        raise ValueError(f"interpolation {interpolation!r}: must be one of {', '.join(FILTERS)}")


def _resize(image: Image.Image, width: int, height: int, interpolation: str) -> Image.Image:
    if image.mode != "RGB":
        raise ValueError(f"the view takes RGB images, not {image.mode}")
    if width * height > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"{image.width} x {image.height} pixels is too elongated: it would be resized to "
            f"{width} x {height}; remove it or crop it"
        )
    return image.resize((width, height), FILTERS[interpolation])


class _Window(ABC):
    """A view of one size: a window of the resized image, black where it reaches beyond it."""

    size: tuple[int, int]
    interpolation: Interpolation

    def _check(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size {self.size}: height and width must be at least 1")
        _check_filter(self.interpolation)

    @abstractmethod
    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the width and height to which an image of ``width x height`` pixels is resized."""

    @abstractmethod
    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the window in the resized image."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return :attr:`size`, whatever the image."""
        return self.size

    def _window(self, width: int, height: int) -> tuple[int, int, int, int]:
        left, top = self._corner(width, height)
        return left, top, left + self.size[1], top + self.size[0]

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the window in the original image: left, top, right, bottom in its pixels."""
        new_width, new_height = self.resized(width, height)
        left, top, right, bottom = self._window(new_width, new_height)
        across, down = width / new_width, height / new_height
        return left * across, top * down, right * across, bottom * down

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view: uint8, shape (height, width, 3)."""
        size = self.resized(*image.size)
        resized = _resize(image, *size, self.interpolation)
        return np.array(resized.crop(self._window(*size)))


@dataclass(frozen=True)
class SquareView(_Window):
    """Resize, then crop the centre: the way that published ViTs are evaluated.

    The image keeps its aspect ratio and is resized to the smallest size that covers
    ``floor(height / crop_fraction) x floor(width / crop_fraction)``; ``size`` is cut from its
    middle. For a square this is bit for bit torchvision's ``Resize(resize_to, interpolation,
    antialias=True)`` and ``CenterCrop(size)`` on a PIL image.

    Parameters
    ----------
    size
        Height and width of the result in pixels.
    crop_fraction
        The crop's side over the resized image's shorter side, in (0, 1].
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> SquareView((224, 224), 0.875).resize_to
    256
    """

    size: tuple[int, int]
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        # Beyond 1 the resized image would not cover the crop.
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction {self.crop_fraction}: must be above 0 and at most 1")
        self._check()

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that the resized image covers."""
        height, width = self.size
        # Rounded down as timm does: 224 at 0.9 is 248.
        return int(height / self.crop_fraction), int(width / self.crop_fraction)

    @property
    def resize_to(self) -> int:
        """The shorter side of :attr:`covered`; for a square, that of the resized image."""
        return min(self.covered)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the width and height to which an image of ``width x height`` pixels is resized."""
        cover_height, cover_width = self.covered
        # The long side is truncated, not rounded, as torchvision does.
        if cover_width * height >= cover_height * width:
            return cover_width, int(cover_width * height / width)
        return int(cover_height * width / height), cover_height

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        # Halves to even, as torchvision does.
        return round((width - self.size[1]) / 2), round((height - self.size[0]) / 2)

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {
            "kind": "square",
            "size": list(self.size),
            "resize_to": self.resize_to,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
        }


@dataclass(frozen=True)
class PaddedView(_Window):
    """Resize to the largest size that fits, and pad with zeros (black) around it.

    The aspect is kept up to the rounding of one side to whole pixels. The image stands in the
    middle; of an odd number of padded pixels, one more is to the right and below.

    Parameters
    ----------
    size
        Height and width of the result in pixels.
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> PaddedView((224, 224)).resized(448, 224)
    (224, 112)
    """

    size: tuple[int, int]
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        self._check()

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the width and height to which an image of ``width x height`` pixels is resized."""
        fit_height, fit_width = self.size
        if fit_width * height <= fit_height * width:
            return fit_width, max(1, round(fit_width * height / width))
        return max(1, round(fit_height * width / height)), fit_height

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        return -((self.size[1] - width) // 2), -((self.size[0] - height) // 2)

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {"kind": "padded", "size": list(self.size), "interpolation": self.interpolation}


@dataclass(frozen=True)
class DenseView:
    """Resize to a given short or long side; the other follows from the aspect.

    Both sides are rounded down to whole patches, so that the aspect changes by less than a patch.

    Parameters
    ----------
    side
        Whether the ``short`` or the ``long`` side is given.
    pixels
        That side in pixels.
    patch
        Height and width of a patch in pixels.
    window
        Height and width of the windows that the result is pushed through the model in, in pixels;
        None for one pass. The result is at least as large.
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, antialiased as Pillow does.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> DenseView("short", 448, (16, 16)).size_of(640, 480)
    (448, 592)
    """

    side: Literal["short", "long"]
    pixels: int
    patch: tuple[int, int]
    window: tuple[int, int] | None = None
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.side not in ("short", "long"):
            raise ValueError(f"side {self.side!r}: must be short or long")
        if self.pixels < max(self.patch):
            raise ValueError(f"pixels {self.pixels}: a patch has {max(self.patch)}")
        if self.window is not None and self.pixels < max(self.window):
            raise ValueError(
                f"pixels {self.pixels}: below the model's own size of {max(self.window)}, which "
                "it would be cut into"
            )
        _check_filter(self.interpolation)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return height and width in pixels of what an image of `width` x `height` becomes."""
        given = min(width, height) if self.side == "short" else max(width, height)
        sides = []
        for side, patch, least in zip(
            (height, width), self.patch, self.window or self.patch, strict=True
        ):
            # Whole numbers throughout: a float would lose a patch where the product is exact.
            fitted = side * self.pixels // given
            sides.append(max(fitted - fitted % patch, least))
        return sides[0], sides[1]

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the whole image: nothing is cut off."""
        return 0.0, 0.0, float(width), float(height)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Apply the view: uint8, shape (height, width, 3)."""
        height, width = self.size_of(*image.size)
        return np.array(_resize(image, width, height, self.interpolation))

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance; JSON-able."""
        return {
            "kind": "dense",
            "side": self.side,
            "pixels": self.pixels,
            "patch": list(self.patch),
            "window": None if self.window is None else list(self.window),
            "interpolation": self.interpolation,
        }


@dataclass(frozen=True)
class WholeView:
    """The image as it is: of features from elsewhere nobody here knows how images became inputs."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the image's own size."""
        return height, width

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return all of the image."""
        return 0.0, 0.0, float(width), float(height)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels: uint8, shape (height, width, 3)."""
        return np.array(image)

    def describe(self) -> dict[str, Any]:
        """Describe the view for a store's provenance."""
        return {"kind": "whole"}


class ViewSettings(Part):
    """How images become inputs, for any model."""

    kind: Kind = Field(
        "square",
        description="square (resized, centre cut out), padded (aspect kept, padded to the model's "
        "size) or dense (aspect kept, at a size of its own).",
    )
    short_side: Count | None = Field(
        None,
        description=f"dense: short side of the resized image in pixels; {_SHORT_SIDE} if neither "
        "side is given.",
    )
    long_side: Count | None = Field(
        None, description="dense: long side of it, in the place of the short one."
    )
    passes: Literal["auto", "one", "tiled"] = Field(
        "auto",
        description="dense: one pass, tiled into windows of the model's size, or auto: one for "
        "families whose own code takes any size.",
    )
    crop_fraction: Fraction | None = Field(
        None,
        description="square: share of the resized short side that the centre crop keeps, for all "
        "models; each model's own if not given. 1 keeps the whole short side.",
    )
    interpolation: Interpolation | None = Field(
        None,
        description="How images are resized, for all models; each model's own if not given.",
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        faults = [
            f"{key}: the view {self.kind} does not know it; remove it"
            for key in self.to_mapping()
            if _ONLY.get(key, self.kind) != self.kind
        ]
        if self.short_side is not None and self.long_side is not None:
            faults.append("long_side: give it or short_side, not both")
        if faults:
            raise ValueError(*faults)
        return self

    @property
    def side(self) -> tuple[Literal["short", "long"], int]:
        """Which side of a dense view is given, and its pixels."""
        if self.long_side is not None:
            return "long", self.long_side
        return "short", _SHORT_SIDE if self.short_side is None else self.short_side

    @classmethod
    def of_described(cls, description: Mapping[str, Any]) -> Self:
        """Return the settings that a view comes from, by its ``describe()``."""
        known = {k: description[k] for k in ("kind", "interpolation")}
        if known["kind"] == "square":
            known["crop_fraction"] = description["crop_fraction"]
        if known["kind"] == "dense":
            known[f"{description['side']}_side"] = description["pixels"]
            known["passes"] = "one" if description["window"] is None else "tiled"
        return cls(**known)

    def to_mapping(self) -> dict[str, Any]:
        """Return what is not at its default, as a config would say it."""
        return {"kind": self.kind} | self.model_dump(exclude_defaults=True)


# Settings that one kind of view knows alone.
_ONLY: Mapping[str, Kind] = {
    "short_side": "dense",
    "long_side": "dense",
    "passes": "dense",
    "crop_fraction": "square",
}


def view_from(description: Mapping[str, Any]) -> View:
    """Make the view that a store was extracted with from its ``describe()``."""
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items()}
    kind = found.pop("kind", None)
    # What follows from the others is told for readers only.
    found.pop("resize_to", None)
    kinds: dict[Any, Callable[..., View]] = {
        "square": SquareView,
        "padded": PaddedView,
        "dense": DenseView,
        "whole": WholeView,
    }
    if kind in kinds:
        return kinds[kind](**found)
    raise DataError(
        f"view {kind!r}: unknown, this vitfeat knows {', '.join(kinds)}; use the one that made "
        "the store"
    )


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
    kinds: dict[str, Callable[[dict[str, Any]], str]] = {
        "square": _square,
        "padded": _padded,
        "dense": _dense,
        "whole": _whole,
    }
    what = kinds[kind](known) if kind in kinds else ""
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


def _whole(_: dict[str, Any]) -> str:
    return "the image, as far as is known: its features are from elsewhere"


def _by(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))
