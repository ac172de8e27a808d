"""Taps that are kept for some images only: which rows of a store these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

Limit = int | Sequence[str]
"""So many images, spread over the dataset, or the images of these ids."""


def spread(count: int, n_images: int) -> tuple[int, ...]:
    """Return rows that are spread evenly: row floor((2i + 1) N / 2n) for i = 0 ... n - 1.

    Parameters
    ----------
    count
        n, at most N.
    n_images
        N.
    """
    return tuple((2 * i + 1) * n_images // (2 * count) for i in range(count))


def kept_rows(
    limits: Mapping[str, Limit], taps: Sequence[str], image_ids: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Return by tap that is kept for some images only their rows, in order.

    Parameters
    ----------
    limits
        By tap: a number, or image ids in any order. A limit that all images are within is none.
    taps
        The taps that are stored; limits of others say nothing.
    image_ids
        The store's rows.

    Raises
    ------
    ConfigError
        A number below 1, no image, or an id that the dataset does not have.
    """
    found: dict[str, tuple[int, ...]] = {}
    for tap in (t for t in taps if t in limits):
        rows = chosen_rows(limits[tap], image_ids, f"limit of the tap {tap}")
        if len(rows) < len(image_ids):
            found[tap] = rows
    return found


def chosen_rows(limit: Limit, image_ids: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the rows of so many images, or of those that are named, in order.

    Parameters
    ----------
    limit
        A number, or image ids in any order.
    image_ids
        All images.
    where
        What asks for them; errors begin with it.

    Raises
    ------
    ConfigError
        A number below 1, no image, or an id that the dataset does not have.
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
