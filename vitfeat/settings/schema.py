"""From a model of settings to the JSON schema that what people write is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def schema_of(model: type[BaseModel], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON schema of a model, in one piece and with few words.

    Pydantic's own has references, titles, and an alternative for every type of a union; messages
    for people are made from what they would write by hand. ``required`` are fields that must be
    there though they have a default, which then is none.
    """
    whole = model.model_json_schema()
    schema: dict[str, Any] = _plain(whole, whole.get("$defs", {}))
    schema["description"] = (model.__doc__ or "").partition("\n")[0]
    for name in required:
        del schema["properties"][name]["default"]
    if required:
        schema["required"] = list(required)
    return schema


def _plain(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **node}
    plain = {k: v for k, v in node.items() if k not in ("title", "$ref", "$defs", "anyOf", "const")}
    if "anyOf" in node:
        plain = _union([_plain(part, definitions) for part in node["anyOf"]]) | plain
    if "const" in node:
        plain["enum"] = [node["const"]]
    if "enum" in plain:
        # The type of words says nothing that the words do not.
        plain.pop("type", None)
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(plain.get(key), Mapping):
            plain[key] = _plain(plain[key], definitions)
    if "properties" in plain:
        plain["properties"] = {k: _plain(v, definitions) for k, v in plain["properties"].items()}
    return plain


def _union(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join alternatives: of words one list of words, of types one list of types."""
    union: dict[str, Any] = {}
    for part in parts:
        union |= {k: v for k, v in part.items() if k not in ("type", "enum")}
    if any("enum" in part for part in parts):
        union["enum"] = [word for part in parts for word in part.get("enum", [None])]
        return union
    kinds = [part["type"] for part in parts]
    if "null" in kinds and "allowed" in union:
        union["allowed"] += " or null"
    union["type"] = [k for kind in kinds for k in ([kind] if isinstance(kind, str) else kind)]
    return union
