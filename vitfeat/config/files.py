"""Config files: YAML in which every key stands once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vitfeat.config.yaml_file import read_yaml
from vitfeat.errors import ConfigError


def read_file(path: Path) -> dict[str, Any]:
    """Return what a config file holds, which is not checked beyond its keys.

    YAML has each key once; PyYAML takes the last one of several and says nothing.
    """
    raw = read_yaml(path)
    node = yaml.compose(path.read_text("utf-8-sig"), yaml.SafeLoader)
    if twice := list(_twice(node, "")):
        raise ConfigError(*(f"{path}: {fault}" for fault in twice))
    return raw


def _twice(node: yaml.Node | None, where: str) -> Iterator[str]:
    """Say which keys stand twice in one mapping."""
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield from _twice(item, f"{where}{place}.")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[Any, int] = {}
    for key, value in node.value:
        line, name = key.start_mark.line + 1, f"{where}{key.value}"
        # Several mappings may be merged into one.
        if key.value in lines and key.value != "<<":
            yield (
                f"line {line}: the key {name!r} stands there twice, first in line "
                f"{lines[key.value]}; remove one"
            )
        lines.setdefault(key.value, line)
        yield from _twice(value, f"{name}.")
