"""Words of commands, and patterns of names, as rules have them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Turn settings into words of a command."""
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


def setting_flags(settings: Mapping[str, Any]) -> list[str]:
    """Turn settings of an analysis into words, which :func:`read_word` reads back as they are."""
    return flags({key: _quoted(value) for key, value in settings.items()})


def _quoted(value: Any) -> Any:
    """Put texts in quotes that would be read as something else, such as the image "7"."""
    if isinstance(value, (list, tuple)):
        return [*map(_quoted, value)]
    return json.dumps(value) if isinstance(value, str) and read_word(value) != value else value


def read_word(text: str, *, numbers: bool = True) -> Any:
    """Read null, a text, or a number where ``numbers`` are taken; 007 is none."""
    if text == "null":
        return None
    if text.startswith('"') and text.endswith('"'):
        with suppress(ValueError):
            return json.loads(text)
    if numbers and re.fullmatch(r"-?(0|[1-9]\d*)", text):
        return int(text)
    if numbers and re.fullmatch(r"-?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?|-?(inf|nan)", text):
        with suppress(ValueError):
            return float(text)
    return text


def any_of(names: Iterable[str]) -> str:
    """Return the pattern of some names, which may be none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def written(path: str, figures: Mapping[str, Any]) -> list[str]:
    """Return the files that stand there when an output is whole; a store has its manifest.

    ``figures`` is how a config wants them (:attr:`vitfeat.config.config.Config.figures`).
    """
    if path.endswith(".zarr"):
        return []
    if not path.endswith(".png"):
        return [path]
    kinds = dict.fromkeys(("png", *figures.get("format", ("pdf",)), "csv"))
    return [f"{path.removesuffix('png')}{kind}" for kind in kinds]


def figure_flags(figures: Mapping[str, Any]) -> list[str]:
    """Return the flag that says how figures are written, where a config says it."""
    return ["--figures", json.dumps(figures, sort_keys=True)] if figures else []
