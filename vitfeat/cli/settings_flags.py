"""Flags of a command from a model of settings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from vitfeat.errors import ConfigError
from vitfeat.plan.words import read_word
from vitfeat.settings.messages import in_words
from vitfeat.settings.part import Part
from vitfeat.settings.schema import schema_of

Chosen = TypeVar("Chosen", bound=Part)


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Part], keys: Sequence[str]
) -> None:
    """Add a flag for some settings; what is not given has its default."""
    schema = schema_of(settings)
    for key in keys:
        node = schema["properties"][key]
        flag, kinds = f"--{key.replace('_', '-')}", _kinds(node)
        taken = {*kinds, *_kinds(node.get("items", {}))}
        read = partial(read_word, numbers=bool(taken & {"integer", "number"}))
        default = node.get("default")
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text = f"default: {'null' if shown is None else shown}" if "default" in node else "needed"
        text = f"{node['description']} ({in_words(node)}; {text})"
        words: dict[str, Any] = {
            "dest": f"{settings.__name__}.{key}",
            "required": key in schema.get("required", ()),
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
            parser.add_argument(flag, nargs=some, action="extend", type=read, **words)
        else:
            parser.add_argument(flag, type=read, **words)


def given_settings(
    options: argparse.Namespace,
    settings: type[Chosen],
    told: Mapping[str, Any] = {},
    **known: Any,
) -> Chosen:
    """Return the settings that flags give; some that are ``told`` otherwise, or ``known``."""
    start = f"{settings.__name__}."
    given = {
        name.removeprefix(start): value
        for name, value in vars(options).items()
        if name.startswith(start)
    }
    properties = schema_of(settings)["properties"] if given else {}
    for key, value in given.items():
        if isinstance(value, list) and len(value) == 1:
            kind = "integer" if isinstance(value[0], int) else "string"
            # A number or a name may stand in the place of a list.
            given[key] = value[0] if kind in _kinds(properties[key]) else value
    given |= told
    try:
        return settings.checked("", given, **known)
    except ConfigError as error:
        raise ConfigError(*(_with_flag(fault, given) for fault in error.args)) from error


def _with_flag(fault: str, given: Mapping[str, Any]) -> str:
    for key in given:
        # An item of a list has its number behind the key.
        fault = re.sub(rf"^{key}\b(\.\d+)?", f"--{key.replace('_', '-')}", fault)
    return fault


def _kinds(node: Mapping[str, Any]) -> list[str]:
    kind = node.get("type", "string")
    return [kind] if isinstance(kind, str) else list(kind)
