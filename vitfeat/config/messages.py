"""What breaks the config's schema, in one line for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from vitfeat.text import nearest


def flaw(values: Any, schema: Mapping[str, Any]) -> str | None:
    """Say in one line what breaks a schema, if anything does."""
    errors = Draft202012Validator(schema).iter_errors(values)
    worst = best_match(errors, key=_severity)
    return None if worst is None else _explain(worst)


def _severity(error: ValidationError) -> tuple[bool, int]:
    """Order errors for jsonschema's choice: an unknown key explains the others, so it comes first.

    The greatest is chosen.
    """
    return error.validator == "additionalProperties", -len(error.path)


def _explain(error: ValidationError) -> str:
    """Say in one line what breaks the schema: the key, what was found, what is allowed."""
    where = ".".join(str(p) for p in error.absolute_path)
    found: Any = error.instance
    rule: Any = error.validator_value
    key = where or "config"
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        allowed = list(schema["properties"])
        unknown = next(k for k in found if k not in allowed)
        path = f"{where}.{unknown}" if where else str(unknown)
        return (
            f"config: unknown key {path!r}{nearest(str(unknown), allowed)}; allowed here: "
            f"{', '.join(allowed)}"
        )
    if error.validator == "enum":
        words = ["null" if word is None else str(word) for word in rule]
        near = nearest(found, words) if isinstance(found, str) else ""
        return f"config: {key}: found {found!r}{near}; allowed: {', '.join(words)}"
    if error.validator == "uniqueItems":
        twice = next(item for n, item in enumerate(found) if item in found[:n])
        return f"config: {key}: {twice!r} stands there twice; remove one of them"
    if error.validator == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        allowed_here = _in_words(error) or kinds_in_words(kinds)
        return f"config: {key}: found {found!r} ({kind_of(found)}); allowed: {allowed_here}"
    if error.validator == "required":
        missing = next(k for k in rule if k not in found)
        return (
            f"config: {where or 'top level'}: the key {missing!r} is missing; needed here: "
            f"{', '.join(rule)}"
        )
    if error.validator == "pattern":
        return f"config: {key}: found {found!r}; allowed: {_in_words(error)}"
    if error.validator == "minItems":
        return f"config: {key}: found an empty list; give at least {rule}"
    return f"config: {key}: found {found!r}; {error.message}"


def _in_words(error: ValidationError) -> str:
    """Return what a pattern allows, which the schema says beside it for people."""
    return str(error.schema.get("allowed", "")) if isinstance(error.schema, Mapping) else ""


_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def kinds_in_words(kinds: Iterable[str]) -> str:
    """Name the types of a schema as people do."""
    return " or ".join(_WORDS[k] for k in kinds)


def kind_of(value: Any) -> str:
    """Name the kind of a value as people do."""
    for kind, types in (
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", list),
        ("object", Mapping),
    ):
        if isinstance(value, types):
            return _WORDS[kind]
    return "null" if value is None else type(value).__name__
