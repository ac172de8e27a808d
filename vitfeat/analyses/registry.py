"""Which analyses there are: the packages beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import vitfeat.analyses
from vitfeat.analyses.base import Analysis
from vitfeat.analyses.scoring import Scoring


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
    scored.cache_clear()


def analyses() -> Mapping[str, Analysis]:
    """Return all analyses by name, in their order."""
    return {**built_in(), **_own}


@cache
def scored() -> Mapping[str, Scoring]:
    """Return how analyses are scored whose tables are collected into one, in their order."""
    across = {name: analysis.across for name, analysis in analyses().items()}
    return {name: a.scoring for name, a in across.items() if a is not None and a.scoring}
