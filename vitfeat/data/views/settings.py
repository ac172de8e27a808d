"""The settings of a view, before it is known for which model it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

Kind = Literal["square", "padded", "dense"]
Passes = Literal["auto", "one", "tiled"]

# DAVIS is followed at this short side by DINO's successors; the paper's dense features are, too.
_SHORT_SIDE = 448


@dataclass(frozen=True)
class ViewSettings:
    """How images become inputs, for any model.

    Parameters
    ----------
    kind
        ``square`` (resized, centre cut out), ``padded`` (aspect kept, padded to the model's own
        size) or ``dense`` (aspect kept, at a size of one's own: a grid for each image).
    short_side, long_side
        ``dense``: one side of the resized image in pixels; the other follows from the aspect, and
        both are rounded down to whole patches. 448 pixels for the short side if neither is given.
    passes
        ``dense``: ``one`` pass with positions fitted to each grid, ``tiled`` into windows of the
        model's own size, or ``auto``: one for the families whose own code takes any size.

    Raises
    ------
    ValueError
        A setting is out of range or at odds with another.
    """

    kind: Kind = "square"
    short_side: int | None = None
    long_side: int | None = None
    passes: Passes = "auto"

    def __post_init__(self) -> None:
        for key, allowed in (("kind", Kind), ("passes", Passes)):
            if (found := getattr(self, key)) not in get_args(allowed):
                raise ValueError(f"{key}: {found!r} is not one of {', '.join(get_args(allowed))}")
        if self.kind != "dense":
            for key, default in (("short_side", None), ("long_side", None), ("passes", "auto")):
                if getattr(self, key) != default:
                    raise ValueError(f"{key}: the view {self.kind} does not know it; remove it")
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
        """Make the settings from a mapping of a config.

        Raises
        ------
        ConfigError
            A key is unknown, or as this class does; `where` is the mapping's place.
        """
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
        plain = asdict(type(self)())
        return {"kind": self.kind} | {k: v for k, v in asdict(self).items() if v != plain[k]}
