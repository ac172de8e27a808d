"""Flags of commands that push images through a model, and what they mean."""

from __future__ import annotations

import argparse
from typing import Any

from vitfeat.cli.arguments import weights_folder
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.extraction.settings import Settings

HOW = ("batch_size", "workers", "replace")


def add_pass_flags(sub: argparse.ArgumentParser, numbers: tuple[str, ...] = ()) -> None:
    """Add the flags that say how images are pushed, and some that decide a store's numbers.

    Threads are the command's own.
    """
    add_settings(sub, Settings, (*numbers, *HOW))
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    weights_folder(sub)


def pass_ways(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the command's own flags say of a pass."""
    return {"device": options.device, "threads": options.threads}


def all_ways(options: argparse.Namespace) -> dict[str, Any]:
    """Return what all of these flags say of a pass but for ``replace``."""
    how = given_settings(options, Settings)
    return {"batch_size": how.batch_size, "workers": how.workers, **pass_ways(options)}
