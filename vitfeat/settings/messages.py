"""What breaks a schema of settings, in lines for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from vitfeat.text import nearest

_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "array", lambda _, value: isinstance(value, list | tuple)
)
_VALIDATOR = validators.extend(Draft202012Validator, type_checker=_TYPES)  # type: ignore[no-untyped-call]


def flaws(values: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    """Say in a line each what breaks a schema; ``where`` stands before the keys.

    Of what is wrong with one value only the worst is told: an unknown key explains one that is
    missing.
    """
    worst: dict[tuple[Any, ...], ValidationError] = {}
    for error in _VALIDATOR(schema).iter_errors(values):
        place = tuple(error.absolute_path)
        if place not in worst or error.validator == "additionalProperties":
            worst[place] = error
    for error in worst.values():
        yield from _explained(error, where)
    yield from _not_finite(values, where)


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Refuse NaN and infinity, which pass for numbers of any range."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where.rstrip('.: ')}: found {value}; allowed: a finite number"
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    for key, below in value.items() if isinstance(value, Mapping) else ():
        yield from _not_finite(below, f"{where}{key}.")


def _explained(error: ValidationError, where: str) -> Iterator[str]:
    """Say what breaks the schema: the key, what was found, what is allowed."""
    found: Any = error.instance
    rule: Any = error.validator_value
    schema: Any = error.schema
    path = ".".join(map(str, error.absolute_path))
    key = f"{where}{path}" if path else where.rstrip(".: ")
    allowed = schema.get("allowed") or in_words(schema)
    if error.validator == "additionalProperties":
        known, start = list(schema["properties"]), re.sub(r"\.$", ": ", where)
        for unknown in (k for k in found if k not in known):
            name = f"{path}.{unknown}" if path else str(unknown)
            yield (
                f"{start}unknown key {name!r}{nearest(str(unknown), known)}; allowed here: "
                f"{', '.join(known)}"
            )
    elif error.validator == "enum":
        names = ["null" if word is None else str(word) for word in rule]
        near = nearest(found, names) if isinstance(found, str) else ""
        yield f"{key}: found {found!r}{near}; allowed: {', '.join(names)}"
    elif error.validator == "uniqueItems":
        twice = next(item for n, item in enumerate(found) if item in found[:n])
        yield f"{key}: {twice!r} stands there twice; remove one of them"
    elif error.validator == "type":
        below = "; write its keys below it, indented, or remove it" if found is None else ""
        empty = below if "object" in rule else ""
        yield f"{key}: found {found!r} ({kind_of(found)}); allowed: {allowed}{empty}"
    elif error.validator == "required":
        missing = next(k for k in rule if k not in found)
        yield f"{key}: the key {missing!r} is missing; needed here: {', '.join(rule)}"
    elif error.validator == "minItems" and not found:
        yield f"{key}: found an empty list; allowed: {allowed}"
    else:
        yield f"{key}: found {found!r}; allowed: {allowed}"


_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def in_words(node: Mapping[str, Any], quote: str = "") -> str:
    """Say what a node of a schema allows; words stand between quotes."""
    if "allowed" in node:
        return str(node["allowed"])
    if "enum" in node:
        return ", ".join("null" if w is None else f"{quote}{w}{quote}" for w in node["enum"])
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return " or ".join(_kind(kind, node, quote) for kind in kinds)


def _kind(kind: str, node: Mapping[str, Any], quote: str) -> str:
    if kind == "array" and "items" in node:
        return f"a list ({in_words(node['items'], quote)})"
    if kind == "object" and "properties" in node:
        return f"a mapping, with keys out of {', '.join(node['properties'])}"
    bounds = _BOUNDS if kind in ("integer", "number") else {}
    return ", ".join((_WORDS[kind], *(f"{s} {node[k]:g}" for k, s in bounds.items() if k in node)))


def kind_of(value: Any) -> str:
    """Name the kind of a value as people do."""
    for kind, types in (
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", (list, tuple)),
        ("object", Mapping),
    ):
        if isinstance(value, types):
            return _WORDS[kind]
    return "null" if value is None else type(value).__name__
