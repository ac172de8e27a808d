"""The settings of a view, before it is known for which model it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitfeat.data.views.base import Interpolation
from vitfeat.errors import ConfigError
from vitfeat.text import nearest

Kind = Literal["square", "padded", "dense"]
Passes = Literal["auto", "one", "tiled"]

# DAVIS is followed at this short side by DINO's successors; the paper's dense features are, too.
_SHORT_SIDE = 448


@dataclass(frozen=True)
class ViewSettings:
    """How images become inputs, for any model."""

    kind: Kind = "square"
    short_side: int | None = None
    long_side: int | None = None
    passes: Passes = "auto"
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        for key, names in _NAMES.items():
            if (found := getattr(self, key)) not in (*names, _DEFAULTS[key]):
                raise ValueError(f"{key}: {found!r} is not one of {', '.join(names)}")
        for key, kind in _ONLY.items():
            if self.kind != kind and getattr(self, key) != _DEFAULTS[key]:
                raise ValueError(f"{key}: the view {self.kind} does not know it; remove it")
        share = self.crop_fraction
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise ValueError(f"crop_fraction: {share!r} is not a number above 0 and at most 1")
        if self.short_side is not None and self.long_side is not None:
            raise ValueError("long_side: give it or short_side, not both")
        for key in ("short_side", "long_side"):
            if (side := getattr(self, key)) is not None and side < 1:
                raise ValueError(f"{key}: {side} is below 1")

    @property
    def side(self) -> tuple[Literal["short", "long"], int]:
        """Which side of a dense view is given, and its pixels."""
        if self.long_side is not None:
            return "long", self.long_side
        return "short", _SHORT_SIDE if self.short_side is None else self.short_side

    @classmethod
    def from_config(cls, where: str, mapping: Mapping[str, Any]) -> ViewSettings:
        """Make the settings from a mapping of a config."""
        allowed = [f.name for f in fields(cls)]
        for key in mapping:
            if key not in allowed:
                raise ConfigError(
                    f"{where}.{key}: unknown key{nearest(str(key), allowed)}; allowed are "
                    f"{', '.join(allowed)}"
                )
        try:
            return cls(**{key: value for key, value in mapping.items() if value is not None})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}.{error}") from error

    def to_mapping(self) -> dict[str, Any]:
        """Return what is not at its default, as a config would say it."""
        return {"kind": self.kind} | {k: v for k, v in asdict(self).items() if v != _DEFAULTS[k]}


_DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in fields(ViewSettings)}

# What settings may be that are names.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "passes": get_args(Passes),
    "interpolation": get_args(Interpolation),
}

# Settings that one kind of view knows alone.
_ONLY: Mapping[str, Kind] = {
    "short_side": "dense",
    "long_side": "dense",
    "passes": "dense",
    "crop_fraction": "square",
}
