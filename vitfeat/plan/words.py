"""Words of commands, and patterns of names, as rules have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Turn settings into words of a command, which reads them back as they are."""
    words = []
    for key, value in settings.items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        texts = ["null" if v is None else str(v) for v in values]
        # A text that looks like a flag goes with its flag in one word.
        dashed = any(text.startswith("-") for text in texts)
        words += [f"{flag}={text}" for text in texts] if dashed else [flag, *texts]
    return words


def any_of(names: Iterable[str]) -> str:
    """Return the pattern of some names, which may be none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def written(path: str) -> list[str]:
    """Return the files that stand there when an output is whole; a store has its manifest."""
    if path.endswith(".zarr"):
        return []
    if not path.endswith(".png"):
        return [path]
    return [f"{path.removesuffix('png')}{kind}" for kind in ("png", "pdf", "csv")]
