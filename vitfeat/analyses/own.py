"""Analyses of the user's own: modules that a config names.

Such a module has a function ``rows(store, settings)`` that yields a mapping a score: ``layer`` and
``value``, and as far as they differ ``score``, ``features``, ``variant``, ``group`` and ``n``. It
may have a class ``Settings``, derived from :class:`vitfeat.Settings`, and in ``SCORES`` what its
scores are called. docs/extending.md shows one.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic.errors import PydanticUserError

from vitfeat.analyses.base import STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.needs import NUMPY_MB
from vitfeat.analyses.registry import built_in, register
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.analyses.scoring import Headline, Measure, Rank, Scoring
from vitfeat.analyses.settings import Settings
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.text import nearest

OWN = "VITFEAT_OWN"
"""The variable that tells a job's process which modules there are: a JSON of paths by name."""

_KEYS = ("layer", "value", "score", "features", "variant", "group", "n")


def register_own(modules: Mapping[str, str]) -> None:
    """Make modules analyses: their files, by the names that the analyses get."""
    for name, path in modules.items():
        if name in built_in():
            raise ConfigError(
                f"analyses.{name}.module: vitfeat has an analysis {name}; choose another name"
            )
        register(_analysis(name, Path(path)))


def register_told() -> None:
    """Make those analyses that a workflow tells the processes of its jobs."""
    register_own(json.loads(os.environ.get(OWN, "{}")))


def _analysis(name: str, path: Path) -> Analysis:
    module = _module(name, path)
    rows, settings = getattr(module, "rows", None), getattr(module, "Settings", Settings)
    if not callable(rows):
        raise ConfigError(f"analyses.{name}.module: {path} has no function rows(store, settings)")
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        raise ConfigError(f"analyses.{name}.module: {path}: Settings is no vitfeat.Settings")
    keys = tuple(key for key in settings.model_fields if key not in settings.required)
    scores = getattr(module, "SCORES", None) or {"value": name}
    job = Job(
        name,
        "write",
        inputs={"store": STORE},
        outputs={"out": f"{name}/{{dataset}}/{{model}}.csv"},
        settings=keys,
        alone=True,
        needs=lambda _: Needs(4 * NUMPY_MB, 120),
    )
    return Analysis(
        name,
        settings,
        place=1000,
        jobs=(job,),
        across=Across((_scoring(name, scores),)),
        module=path,
        write=partial(_write, rows, tuple(scores), name, path),
    )


def _scoring(name: str, titles: Mapping[str, str]) -> Scoring:
    """Return how it is scored: every score by layer; layers are ranked by the first."""
    first = next(iter(titles))
    return Scoring(
        title=name,
        short=name,
        headline=Headline(first, titles[first], features=()),
        ranked=(first,),
        counted="image",
        measures=tuple(Measure(score, title, Rank.OVERVIEW) for score, title in titles.items()),
        kinds={},
    )


def _module(name: str, path: Path) -> ModuleType:
    where = f"analyses.{name}.module: {path}"
    # Below vitfeat, whose log has what the module's logger says.
    spec = spec_from_file_location(f"vitfeat.own.{name}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{where}: no such Python module; give the path of a .py file")
    module = module_from_spec(spec)
    # Where classes look up the names in their annotations.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except PydanticUserError as error:
        raise ConfigError(f"{where}: Settings: {str(error).partition(chr(10))[0]}") from error
    except Exception as error:
        raise ConfigError(f"{where}{_place(error, path)}") from error
    return module


def _place(error: Exception, path: Path) -> str:
    """Say in which line of a user's file an error is, and which it is."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    line = f", line {lines[-1]}" if lines else ""
    return f"{line}: {type(error).__name__}: {error}"


def _write(
    rows: Callable[[Any, Settings], Iterable[Mapping[str, Any]]],
    scores: tuple[str, ...],
    name: str,
    path: Path,
    store_path: Path,
    out: Path,
    settings: Settings,
) -> None:
    """Write what a module's ``rows`` makes of a store as a table of ScoreRow."""
    from vitfeat.store.opening import open_store
    from vitfeat.tables import write_table

    store = open_store(store_path)
    row_of = score_rows(name, store, features="", score=scores[0], n=store.n_images)
    table: dict[tuple[Any, ...], ScoreRow] = {}
    try:
        for number, given in enumerate(rows(store, settings), 1):
            where = f"{path}: row {number} of {store.path}"
            row = row_of(**_checked(given, where, store.layers, scores))
            if (key := row[:-2]) in table:
                raise AnalysisError(f"{where}: layer {row.layer} has two values of {row.score}")
            table[key] = row
    except AnalysisError:
        raise
    except Exception as error:
        raise AnalysisError(f"{path}{_place(error, path)}; of {store.path}") from error
    write_table(out, ScoreRow, table.values())


def _checked(
    row: Mapping[str, Any], where: str, layers: Iterable[int], scores: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise AnalysisError(f"{where}: found {row!r}; a row is a mapping")
    if unknown := next((key for key in row if key not in _KEYS), None):
        raise AnalysisError(
            f"{where}: unknown key {unknown!r}{nearest(unknown, _KEYS)}; allowed: "
            f"{', '.join(_KEYS)}"
        )
    for key in ("layer", "value"):
        if key not in row:
            raise AnalysisError(f"{where}: no {key}; every row needs a layer and a value")
    if row["layer"] not in layers:
        raise AnalysisError(
            f"{where}: layer: found {row['layer']!r}; the store has {', '.join(map(str, layers))}"
        )
    score = row.get("score", scores[0])
    if score not in scores:
        raise AnalysisError(
            f"{where}: score: found {score!r}{nearest(str(score), scores)}; SCORES has "
            f"{', '.join(scores)}"
        )
    try:
        value = float(row["value"])
    except (TypeError, ValueError):
        raise AnalysisError(f"{where}: value: found {row['value']!r}, no number") from None
    if not abs(value) < float("inf"):
        raise AnalysisError(
            f"{where}: value: found {value} in layer {row['layer']}; leave such rows out"
        )
    return {**row, "value": value, "layer": int(row["layer"])}
