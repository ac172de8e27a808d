"""Taps that are kept for some images only: which rows of a store these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

Limit = int | Sequence[str]
"""So many images, spread over the dataset, or the images of these ids."""


def spread(count: int, n_images: int) -> tuple[int, ...]:
    """Return n of N rows, spread evenly: row floor((2i + 1) N / 2n) for i = 0 ... n - 1."""
    return tuple((2 * i + 1) * n_images // (2 * count) for i in range(count))


def kept_rows(
    limits: Mapping[str, Limit], taps: Sequence[str], image_ids: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Return the rows, in order, of each stored tap that is kept for some images only.

    A limit that all images are within is none.
    """
    rows = {
        tap: chosen_rows(limits[tap], image_ids, f"limit of the tap {tap}")
        for tap in taps
        if tap in limits
    }
    return {tap: kept for tap, kept in rows.items() if len(kept) < len(image_ids)}


def chosen_rows(limit: Limit, image_ids: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the rows of so many images, or of those that are named, in order.

    Errors begin with `where`, which asks for them.
    """
    if isinstance(limit, int):
        if limit < 1:
            raise ConfigError(f"{where}: found {limit}; allowed: 1 or more images")
        return spread(min(limit, len(image_ids)), len(image_ids))
    if not limit:
        raise ConfigError(f"{where}: names no image; leave it out")
    places = {name: row for row, name in enumerate(image_ids)}
    for name in limit:
        if name not in places:
            raise ConfigError(
                f"{where}: the dataset has no image {name!r}{nearest(name, image_ids)}"
            )
    return tuple(sorted({places[name] for name in limit}))
