"""Layers by number or name: ``first``, ``q1``, ``middle``, ``last``, ``spread``, ``all``, ..."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

_SHARES = {"first": 0.0, "q1": 0.25, "middle": 0.5, "q3": 0.75, "last": 1.0}

SPREAD = 6
"""Layers that ``spread`` gives at most."""


def is_one_layer(wanted: str | int | Sequence[str | int]) -> bool:
    """Return whether a single layer is asked for: not a list, nor a name of several."""
    if isinstance(wanted, str):
        return wanted not in ("all", "spread")
    return not isinstance(wanted, Iterable)


def select_layers(depth: int, wanted: str | int | Sequence[str | int] = "all") -> list[int]:
    """Turn names and numbers of a model's layers into sorted layer numbers without repeats.

    Numbers count from 0, negative ones from the end. A named layer is the one at that share of the
    way from the first to the last layer, rounded down: in 12 layers first, q1, middle, q3, last are
    0, 2, 5, 8, 11. ``spread`` is up to :data:`SPREAD` layers from the first to the last, evenly: in
    12 layers 0, 2, 4, 6, 8, 11.
    """
    if isinstance(wanted, str | int):
        wanted = [wanted]
    chosen: set[int] = set()
    for item in wanted:
        if item == "all":
            chosen.update(range(depth))
        elif item == "spread":
            last, steps = depth - 1, min(SPREAD, depth) - 1
            chosen.update(step * last // max(steps, 1) for step in range(steps + 1))
        elif isinstance(item, int):
            if not -depth <= item < depth:
                raise ConfigError(
                    f"layers: found {item}; a model of {depth} layers has 0 to {depth - 1}"
                )
            chosen.add(item % depth)
        elif item in _SHARES:
            chosen.add(int(_SHARES[item] * (depth - 1)))
        else:
            names = ("all", "spread", *_SHARES)
            raise ConfigError(
                f"layers: found {item!r}{nearest(item, names)}; allowed: {', '.join(names)}, or "
                "numbers"
            )
    return sorted(chosen)
