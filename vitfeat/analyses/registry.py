"""Which analyses there are: the packages beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import vitfeat.analyses
from vitfeat.analyses.base import Analysis


@cache
def built_in() -> Mapping[str, Analysis]:
    """Return the analyses of vitfeat by name, in their order."""
    packages = (m.name for m in iter_modules(vitfeat.analyses.__path__) if m.ispkg)
    known: list[Analysis] = [
        import_module(f"vitfeat.analyses.{name}").ANALYSIS for name in packages
    ]
    return {analysis.name: analysis for analysis in sorted(known, key=lambda a: a.place)}


_own: dict[str, Analysis] = {}


def register(analysis: Analysis) -> None:
    """Add an analysis of the user's own to this process."""
    _own[analysis.name] = analysis


def analyses() -> Mapping[str, Analysis]:
    """Return all analyses by name, in their order."""
    return {**built_in(), **_own}


def scored() -> tuple[str, ...]:
    """Return the analyses whose tables are collected into one, in the order of figures."""
    return tuple(name for name, a in analyses().items() if a.across and a.across.of_scores)
