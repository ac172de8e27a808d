"""Pages that are made from the code: the command line and the Python functions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from vitfeat.cli import build_parser

_COMMANDS = """\
# The command line

What `vitfeat COMMAND --help` says. Every command takes `--help` and, for its messages, `--log`.
"""

_PYTHON = """\
# Python

What a notebook or a script calls, and what an analysis of your own is made of.
[In a notebook](../docs/notebook.md) has an example of each function.

## From images to a store

```{eval-rst}
.. autofunction:: vitfeat.extract
.. autofunction:: vitfeat.store.opening.open_store
```

`vitfeat.open` is `open_store`.

## A store

```{eval-rst}
.. autoclass:: vitfeat.store.reader.FeatureStore
   :members:
.. autoclass:: vitfeat.store.stored_array.StoredArray
   :members:
```

## Scores of arrays

```{eval-rst}
.. autofunction:: vitfeat.cka
.. autofunction:: vitfeat.attention_metrics
.. autofunction:: vitfeat.cluster_scores
.. autofunction:: vitfeat.knn
.. autofunction:: vitfeat.linear_probe
.. autofunction:: vitfeat.retrieval_map
.. autofunction:: vitfeat.jf
.. autofunction:: vitfeat.pck
```

## The explorer in a notebook

```{eval-rst}
.. autofunction:: vitfeat.widget
```

## What an analysis says of itself

```{eval-rst}
.. automodule:: vitfeat.analyses.base
   :members:
.. automodule:: vitfeat.analyses.scoring
   :members:
.. autoclass:: vitfeat.Settings
```

## Errors

```{eval-rst}
.. automodule:: vitfeat.errors
   :members:
```
"""


def commands() -> str:
    """Return the page of all commands."""
    return "\n".join((_COMMANDS, *_commands(build_parser(), "##")))


def _commands(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                yield from _command(action.choices[name], heading)


def _command(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """Yield the section of a command, then those of the commands in it."""
    parser.formatter_class = _Narrow
    yield f"{heading} `{parser.prog}`\n"
    yield f"{_sentence(parser.description or '')}\n"
    yield f"```text\n{parser.format_usage().rstrip()}\n```\n"
    rows = [_row(parser, a) for a in parser._actions if a.dest not in ("help", "log")]
    if found := [row for row in rows if row]:
        yield "| argument | |\n|---|---|"
        yield from found
        yield ""
    if parser.epilog:
        yield f"```text\n{parser.epilog}\n```\n"
    yield from _commands(parser, heading + "#")


class _Narrow(argparse.RawDescriptionHelpFormatter):
    """Usage of one width, whatever the terminal's."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=88)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return ""
    formatter = parser._get_formatter()
    name = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    needed = "**needed** " if action.required and action.option_strings else ""
    return f"| `{name}` | {needed}{_cell(text)} |"


def _cell(text: str) -> str:
    """Return a text as a cell of a table, with what would be markup in it as it is."""
    return re.sub(r"([|<>*_\[\]$])", r"\\\1", " ".join(text.split()))


def _sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    text = _cell(text)
    return text[:1].upper() + text[1:].rstrip(".") + "."


PAGES = {"reference/commands.md": commands, "reference/python.md": lambda: _PYTHON}
