"""What a store was made from and with: asked for, recorded, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from vitfeat.store.arrays import EXACT_TAPS, SUMMARY_GROUP

# Recorded for the reader, never compared: an update of a library does not outdate a store.
_LIBRARIES = ("vitfeat", "torch", "torchvision", "timm", "open_clip_torch", "zarr", "numpy")


IMPORTED = "features"
"""Source of what no model computed here: features from elsewhere."""


def digest(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain JSON, however its text is laid out.

    That of a request is a store's fingerprint: equal requests, equal tensors. A request holds
    everything that decides a store's numbers: the weights, the images, the view, precision, element
    type, taps and layers, and which taps are kept for some images only.
    """
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that shape the numbers."""
    return {name: version(name) for name in _LIBRARIES}


def differences(found: Mapping[str, Any], asked: Mapping[str, Any], *, exact: bool = False) -> str:
    """Say in words where two requests differ, or return an empty string.

    More than asked for is no difference, as what is asked is there, unless `exact`: more taps, and
    taps of all images where some are asked. Of two limits neither covers the other: images that are
    spread over a dataset are others for another number.
    """
    left, right = dict(_flatten(found)), dict(_flatten(asked))
    parts = []
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key), right.get(key)
        if a == b or (not exact and _covers(key, a, b, right.get("taps") or ())):
            continue
        if key == "summaries" and SUMMARY_GROUP not in (left.get("taps") or ()):
            continue  # The taps say that there are none.
        if key == "keep_bits" and set(right.get("taps") or ()) <= set(EXACT_TAPS):
            continue  # Nothing that is asked is rounded.
        parts.append(f"{key}: {_short(a)} in the store, {_short(b)} asked")
    return "; ".join(parts)


def _covers(key: str, found: Any, asked: Any, taps: Collection[str]) -> bool:
    """Return whether a store has what is asked in one respect, and more."""
    if key == "taps":
        return set(asked or ()) <= set(found or ())
    if key == "summaries" or key.startswith("regions."):
        return asked is None
    if key.startswith("limits."):
        return found is None or key.removeprefix("limits.") not in taps
    return False


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    # A SHA-256 tells as much by its first digits.
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text[:120]
