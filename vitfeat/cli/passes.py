"""Flags of commands that push images through a model, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitfeat.cli.arguments import from_json, positive, weights_folder, workers
from vitfeat.errors import ConfigError
from vitfeat.text import nearest

if TYPE_CHECKING:
    from vitfeat.data.views import ViewSettings

_NUMBERS = ("dtype", "keep_bits", "layers", "precision", "view")


def add_pass_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags that say how images are pushed, which change numbers by rounding at most.

    Threads are the command's own.
    """
    sub.add_argument("--batch-size", type=positive, default=32)
    sub.add_argument("--device", default="auto")
    sub.add_argument("--workers", type=workers, default=None, help="decoding processes, or auto")
    sub.add_argument("--replace", action="store_true", help="replace a store from other settings")
    weights_folder(sub)


def pass_ways(options: argparse.Namespace) -> dict[str, Any]:
    """Return what these flags say, as :class:`vitfeat.extraction.settings.Settings` takes it."""
    keys = ("batch_size", "device", "workers", "replace", "threads")
    return {key: getattr(options, key) for key in keys}


def view_of(found: Any, flag: str) -> ViewSettings:
    """Return the settings of a view from what JSON has of them."""
    from vitfeat.data.views import ViewSettings

    if not isinstance(found, dict):
        raise ConfigError(
            f'{flag}: found {found}; allowed: a mapping, such as {{"kind": "padded"}}'
        )
    return ViewSettings.from_config(flag, found)


def numbers_of(text: str) -> Mapping[str, Any]:
    """Read from JSON what decides a store's numbers: the extraction's settings of a config."""
    found = from_json(text, "--extraction")
    if not isinstance(found, dict):
        raise ConfigError(f"--extraction: found {text}; allowed: a mapping")
    if unknown := next((key for key in found if key not in _NUMBERS), None):
        raise ConfigError(
            f"--extraction: unknown key {unknown!r}{nearest(unknown, _NUMBERS)}; allowed: "
            f"{', '.join(_NUMBERS)}"
        )
    return {**found, "view": view_of(found.get("view", {}), "--extraction: view")}
