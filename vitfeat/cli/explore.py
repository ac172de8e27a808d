"""The command that opens results in a browser."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, count
from vitfeat.console import Console

logger = logging.getLogger(__name__)

CONFIG = Path("config.yaml")


def add(command: AddCommand) -> None:
    """Add the explorer."""
    sub = command("explore", _explore, "look at images, patches, attention and scores in a browser")
    sub.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the folder")
    sub.add_argument(
        "--configfile",
        type=Path,
        help="the config that the results were made with, which says where the images are "
        "(default: config.yaml, where there is one)",
    )
    sub.add_argument(
        "--root",
        action="append",
        default=[],
        type=_root,
        metavar="DATASET=FOLDER",
        help="where the images of a dataset are, in the place of what the config says",
    )
    sub.add_argument("--port", type=count, default=0, help="of the loopback; 0 takes a free one")
    sub.add_argument("--no-open", action="store_true", help="print the link, open no browser")


def _root(text: str) -> tuple[str, Path]:
    dataset, equals, folder = text.partition("=")
    if not (dataset and equals and folder):
        raise argparse.ArgumentTypeError(f"{text} is not DATASET=FOLDER")
    return dataset, Path(folder)


def _explore(options: argparse.Namespace, console: Console) -> None:
    import webbrowser

    from vitfeat.errors import DataError
    from vitfeat.explorer.catalog import Results
    from vitfeat.explorer.content import Content
    from vitfeat.explorer.server import Server

    config = options.configfile or (CONFIG if CONFIG.is_file() else None)
    results = Results.of(options.results, config, dict(options.root))
    for line in results.remarks:
        logger.warning(line)
    try:
        server = Server(Content(results), options.port)
    except OSError as error:
        raise DataError(
            f"--port {options.port}: {error.strerror}; choose another, or 0 for a free one"
        ) from error
    with server.running() as link:
        console.print(f"{link}\nCtrl-C ends it.")
        if not options.no_open:
            webbrowser.open(link)
        server.wait()
