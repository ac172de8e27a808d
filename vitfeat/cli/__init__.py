"""The command line: parse, call, write. The workflow's rules and people use the same commands.

Every handler imports what it needs itself: importing torch takes seconds, and most jobs of a
workflow do without.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vitfeat
from vitfeat.analyses.own import OWN, register_own, register_told
from vitfeat.caches import find_caches
from vitfeat.cli import (
    attention_maps,
    collect,
    config,
    datasets,
    explore,
    ledger,
    models,
    run,
    stores,
)
from vitfeat.cli.arguments import Handler, choose_figures
from vitfeat.console import Console
from vitfeat.errors import VitfeatError, what_to_do
from vitfeat.gpus import own_gpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 behind one line that says what is wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _find_own(words)
    except VitfeatError as error:
        Console(None).error(str(error))
        return 1
    parser = build_parser()
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    find_caches()
    with _console(options.log) as console, _no_lost_interrupt(console):
        try:
            with own_gpu(getattr(options, "device", "cpu")) as device:
                options.device = device
                if getattr(options, "figures", None):
                    choose_figures(options.figures)
                options.handler(options, console)
        except VitfeatError as error:
            console.error(str(error))
            return 1
        except BrokenPipeError:  # `vitfeat models | head`
            return 0
        except OSError as error:
            # A full disk, a folder that may not be written, a name that is too long.
            where = f"{error.filename}: " if error.filename else ""
            console.error(f"{where}{error.strerror or error}; {what_to_do(error)}")
            return 1
        except MemoryError:
            console.error(
                "out of memory; end what else uses it, take a machine with more, or smaller pieces "
                "(--max-mb, --batch-size)"
            )
            return 1
        except KeyboardInterrupt:
            console.error("interrupted")
            return 130
        except Exception:
            if not console.bug():
                raise
            return 1
    return 0


def _find_own(words: list[str]) -> None:
    """Make modules of the user's own analyses: those that a workflow tells, or that is named."""
    named = words[1] if words[:1] in (["run"], ["draw"]) and len(words) > 1 else ""
    if named.endswith(".py"):
        words[1] = Path(named).stem
        register_own({words[1]: named})
    elif OWN in os.environ:
        register_told()


@contextmanager
def _no_lost_interrupt(console: Console) -> Iterator[None]:
    """End the process where Python would lose Ctrl-C: in callbacks, of which imports have many."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            console.error("interrupted")
            os._exit(130)
        before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _console(log: Path | None) -> Console:
    try:
        return Console(log)
    except OSError as error:
        sys.exit(f"vitfeat: error: --log {log}: {error.strerror}; choose another path")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="vitfeat",
        description="Look inside Vision Transformers: features of every layer, extracted once.",
    )
    parser.add_argument("--version", action="version", version=vitfeat.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    called_by_rules = []

    def command(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        # Without a text of help a command is not listed.
        listed: dict[str, Any] = {}
        if name in EXAMPLES:
            listed = {
                "help": text,
                "epilog": f"for example: vitfeat {name} {EXAMPLES[name]}".rstrip(),
            }
        else:
            called_by_rules.append(name)
        sub = commands.add_parser(name, description=text, **listed)
        sub.add_argument("--log", type=Path, help="write the messages to this file")
        sub.set_defaults(handler=handler)
        return sub

    groups = (
        models,
        datasets,
        stores,
        explore,
        ledger,
        config,
        attention_maps,
        run,
        collect,
    )
    for group in groups:
        group.add(command)
    parser.epilog = (
        f"The workflow calls these: {', '.join(called_by_rules)}. Each command shows its arguments "
        "with --help."
    )
    return parser


EXAMPLES = {
    "init": "myphotos --from-folder PHOTOS --models dinov2-b14 clip-b16",
    "check": "config.yaml",
    "doctor": "--configfile config.yaml",
    "models": "",
    "fetch": "dino-b16",
    "extract": "demo-dino --index results/datasets/digits.csv --root results/demo/digits "
    "--out digits.zarr",
    "import": "resnet50.npz --model resnet50 --index results/datasets/digits.csv "
    "--out resnet50.zarr",
    "export": "results/features/digits/demo-dino.zarr cls.parquet --layers last",
    "info": "results/features/digits/demo-dino.zarr",
    "verify": "results/features/digits/demo-dino.zarr",
    "repair": "results/features/digits/demo-dino.zarr",
    "du": "results",
    "explore": "results",
    "reproduce": "demo-dino-knn",
    "settings": "",
    "attention-grid": "cat.jpg --model demo-dino --out cat.png",
}
"""What people call, with what."""
