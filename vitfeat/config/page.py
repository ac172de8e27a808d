"""Every key of a config as a page of Markdown: docs/settings.md is this page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vitfeat.config.parsing import config_schema
from vitfeat.settings.messages import in_words

_HEAD = """\
# Every key of a config

`vitfeat settings` prints this page from what checks a config. [config.yaml](../config.yaml) shows
the keys in use. A config needs `models` and `datasets`; of everything else there is a default.
"""


def settings_page() -> str:
    """Return the page."""
    return "\n".join((_HEAD, *_section("", config_schema())))


def _section(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of a mapping's keys, then those of the mappings in it."""
    keys = node["properties"]
    if path:
        yield f"## {path}\n\n{_prose(node['description'])}\n"
    plain = {key: below for key, below in keys.items() if not _is_section(below)}
    if plain:
        yield "| key | allowed | default | |\n|---|---|---|---|"
        for key, below in plain.items():
            needed = key in node.get("required", ())
            default = "needed" if needed else _default(below)
            allowed, text = _prose(in_words(below, "`")), _prose(below["description"])
            yield f"| `{key}` | {allowed} | {default} | {text} |"
        yield ""
    for key, below in keys.items():
        if _is_section(below):
            inner = below.get("additionalProperties") or below
            name = f"{key}.NAME" if inner is not below else key
            yield from _section(
                f"{path}.{name}" if path else name, {**inner, "description": below["description"]}
            )


def _is_section(node: Mapping[str, Any]) -> bool:
    inner = node.get("additionalProperties")
    return "properties" in node or (isinstance(inner, Mapping) and "properties" in inner)


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return ""
    default = node["default"]
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def _prose(text: str) -> str:
    return text.replace("|", "\\|")
