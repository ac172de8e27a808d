"""Flags of a command from a model of settings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from vitfeat.analyses.settings import Settings
from vitfeat.config.schema import schema_of
from vitfeat.errors import ConfigError

Chosen = TypeVar("Chosen", bound=Settings)

_GIVEN = "setting_"


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Settings], keys: Sequence[str]
) -> None:
    """Add a flag for some settings; what is not given has its default."""
    properties = schema_of(settings)["properties"]
    for key in keys:
        node = properties[key]
        flag, kinds = f"--{key.replace('_', '-')}", _kinds(node)
        default = node.get("default")
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text = f"{node['description']} (default: {'null' if shown is None else shown})"
        words: dict[str, Any] = {
            "dest": f"{_GIVEN}{key}",
            "metavar": key.upper(),
            "default": argparse.SUPPRESS,
            "help": text.replace("%", "%%"),
        }
        if kinds == ["boolean"]:
            del words["metavar"]
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **words)
        elif "array" in kinds:
            # `extend`: texts that look like flags come one by one, each behind the flag.
            some = "+" if node.get("minItems") else "*"
            parser.add_argument(flag, nargs=some, action="extend", type=_read, **words)
        else:
            parser.add_argument(flag, type=_read, **words)


def given_settings(options: argparse.Namespace, settings: type[Chosen]) -> Chosen:
    """Return the settings that flags give."""
    given = {
        name.removeprefix(_GIVEN): value
        for name, value in vars(options).items()
        if name.startswith(_GIVEN)
    }
    properties = schema_of(settings)["properties"] if given else {}
    for key, value in given.items():
        if isinstance(value, list) and len(value) == 1:
            kind = "integer" if isinstance(value[0], int) else "string"
            # A number or a name may stand in the place of a list.
            given[key] = value[0] if kind in _kinds(properties[key]) else value
    try:
        return settings(**given)
    except ConfigError as error:
        raise ConfigError(_with_flags(str(error), given)) from error


def _with_flags(message: str, given: Mapping[str, Any]) -> str:
    for key in given:
        # An item of a list has its number behind the key.
        message = re.sub(rf"^config: {key}\b(\.\d+)?", f"--{key.replace('_', '-')}", message)
    return message


def _kinds(node: Mapping[str, Any]) -> list[str]:
    kind = node.get("type", "string")
    return [kind] if isinstance(kind, str) else list(kind)


def _read(text: str) -> Any:
    if text == "null":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
