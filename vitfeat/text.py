"""Small pieces of wording that several messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the allowed word nearest to `word`, or ``""``.

    Letter case counts for nothing: ``dino-B16`` is nearer to ``dino-b16`` than to ``dino-s16``.
    """
    words = list(allowed)
    folded = {known.casefold(): known for known in reversed(words)}
    match = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[match[0]]!r}?)" if match else ""


def plural(count: int, noun: str) -> str:
    """Return ``"1 image"`` or ``"2,000 images"``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def some(words: Sequence[str], most: int) -> str:
    """Return ``"a, b, ..."``: the first words, and whether there are more."""
    return ", ".join([*words[:most], *(["..."] if len(words) > most else [])])


def size(n_bytes: float) -> str:
    """Return a number of bytes as people read it, in powers of 1024: ``"3.2 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time span as people read it: ``"42 s"``, ``"3 min"``, ``"2.5 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def normalisation(mean: Iterable[float], std: Iterable[float], told_by: str) -> str:
    """Return how images are normalised, and who says so where that is known."""
    means, stds = (", ".join(f"{v:.4g}" for v in values) for values in (mean, std))
    return f"mean {means}; std {stds}" + (f"; told by {told_by}" if told_by else "")
