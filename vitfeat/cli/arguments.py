"""What the commands share: how they are added, types of arguments, work on several models."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

from vitfeat.console import Console
from vitfeat.errors import ConfigError, VitfeatError
from vitfeat.text import nearest

Handler = Callable[[argparse.Namespace, Console], None]


class AddCommand(Protocol):
    """Adds a command to the command line."""

    def __call__(self, name: str, handler: Handler, text: str, /) -> argparse.ArgumentParser:
        """Return the command's parser, for its arguments."""


logger = logging.getLogger(__name__)

MODEL = "{model}"
"""What stands for each of several models in paths."""

WEIGHTS_FOLDER = Path("weights")


def weights_folder(parser: argparse.ArgumentParser, default: Path | None = WEIGHTS_FOLDER) -> None:
    """Add the option that says where fetched weights are."""
    parser.add_argument(
        "--weights-folder",
        type=Path,
        default=default,
        help="where fetched weights are recorded (default: weights, or as the config says)",
    )


def figure_flag(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how figures are written."""
    parser.add_argument(
        "--figures", metavar="JSON", help='such as {"format": ["svg"], "columns": 1}'
    )


def choose_figures(text: str) -> None:
    """Take what the option says."""
    # Most jobs need neither the config's model nor matplotlib.
    from vitfeat.config.model import Figures
    from vitfeat.figures import style

    chosen = Figures.checked("--figures: ", from_json(text, "--figures"))
    style.choose(format=chosen.format, columns=chosen.columns)


def layer(text: str) -> str | int:
    """Read a layer: a name or a number."""
    return int(text) if text.lstrip("-").isdigit() else text


def count(text: str) -> int:
    """Read a whole number from 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def part(text: str) -> tuple[int, int]:
    """Read which job of how many it is: I/N, from 1."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 1 to N")
    return int(number), int(of)


def from_json(text: str, flag: str) -> Any:
    """Read a flag's JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: not JSON ({error}): {text[:80]}") from error


def models_json(text: str) -> list[dict[str, str]]:
    """Read what ``--models`` gives to figures."""
    found = from_json(text, "--models")
    if not isinstance(found, list) or not all(map(_is_model, found)):
        raise ConfigError(
            f"--models: found {text[:80]}; allowed: a list of mappings with id, label, family and "
            "maybe size, all of them texts"
        )
    return found


def _is_model(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and {"id", "label", "family"} <= found.keys()
        and all(isinstance(value, str) for value in found.values())
    )


def sets_json(text: str, models: Collection[str]) -> dict[str, list[str]]:
    """Read choices of models, ``{name: [id, ...]}``."""
    sets = from_json(text, "--sets")
    if not isinstance(sets, dict) or not all(isinstance(ids, list) for ids in sets.values()):
        raise ConfigError(f"--sets: found {text}; allowed: {{NAME: [ID, ...], ...}} as JSON")
    for name, ids in sets.items():
        if unknown := next((model for model in ids if model not in models), None):
            raise ConfigError(
                f"--sets: {name}: found {unknown!r}{nearest(str(unknown), models)}; allowed: ids "
                f"of --models: {', '.join(models)}"
            )
    return sets


def of_model(path: Path, model: str) -> Path:
    """Return the path of one of several models."""
    return Path(str(path).replace(MODEL, model))


def call_all(calls: Iterable[tuple[str, Callable[[], None]]], console: Console) -> None:
    """Call all, also behind one that fails; the first failure is raised, others are told.

    Beside each call stands the model that its messages and its failure name, or an empty text.
    """
    failures = []
    for model, call in calls:
        try:
            with console.naming(model):
                call()
        except VitfeatError as error:
            named = not model or model in str(error)
            failures.append(error if named else VitfeatError(f"{model}: {error}"))
    for line in list(dict.fromkeys(map(str, failures)))[1:]:
        logger.error(line)
    if failures:
        raise failures[0]
