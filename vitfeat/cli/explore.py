"""The command that opens results in a browser."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from vitfeat.cli.arguments import AddCommand, count, positive
from vitfeat.console import Console

if TYPE_CHECKING:
    from vitfeat.explorer.catalog import Results

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
    outs = sub.add_mutually_exclusive_group()
    outs.add_argument(
        "--export",
        type=Path,
        metavar="FOLDER",
        help="write a folder instead, for any host of files that serves parts of them",
    )
    outs.add_argument(
        "--single-file", type=Path, metavar="FILE", help="write one HTML file of up to 20 images"
    )
    sub.add_argument(
        "--images",
        type=positive,
        help="of an export: so many of each dataset, spread over it (default: 100; 12 of a file)",
    )
    sub.add_argument("--ids", nargs="+", action="extend", help="of an export: these images")
    sub.add_argument("--models", nargs="+", help="of an export: these models (default: all)")
    sub.add_argument(
        "--datasets",
        nargs="+",
        help="of an export: these datasets (default: all; of a file the first with patches)",
    )


def _root(text: str) -> tuple[str, Path]:
    dataset, equals, folder = text.partition("=")
    if not (dataset and equals and folder):
        raise argparse.ArgumentTypeError(f"{text} is not DATASET=FOLDER")
    return dataset, Path(folder)


def _explore(options: argparse.Namespace, console: Console) -> None:
    import webbrowser
    from threading import Thread

    from vitfeat.errors import DataError
    from vitfeat.explorer.catalog import Results
    from vitfeat.explorer.content import Content
    from vitfeat.explorer.server import Server

    config = options.configfile or (CONFIG if CONFIG.is_file() else None)
    results = Results.of(options.results, config, dict(options.root))
    for line in results.remarks:
        logger.warning(line)
    if options.export or options.single_file:
        console.print(_export(options, results))
        return
    try:
        server = Server(Content(results), options.port)
    except OSError as error:
        raise DataError(
            f"--port {options.port}: {error.strerror}; choose another, or 0 for a free one"
        ) from error
    with server.running() as link:
        Thread(target=server.content.warm, daemon=True).start()
        console.print(f"{link}\nCtrl-C ends it.")
        if not options.no_open:
            webbrowser.open(link)
        server.wait()


def _export(options: argparse.Namespace, results: Results) -> str:
    from vitfeat.explorer.export import Choice, export_file, export_site

    datasets = options.datasets
    if options.single_file and not datasets:
        with_patches = (s.dataset for s in results.stores.values() if "spatial" in s.store)
        datasets = [next(with_patches, results.datasets[0])]
    images = options.ids or options.images or (12 if options.single_file else 100)
    choice = Choice(images, options.models, datasets)
    if options.single_file:
        return export_file(results, choice, options.single_file)
    return export_site(results, choice, options.export)
