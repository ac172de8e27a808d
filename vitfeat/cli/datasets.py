"""Commands about datasets: which images, what is annotated, and the embedded ones."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from vitfeat.cli.arguments import AddCommand, positive
from vitfeat.cli.settings_flags import add_settings, given_settings
from vitfeat.console import Console
from vitfeat.data.spec import DatasetSpec

logger = logging.getLogger(__name__)


def add(command: AddCommand) -> None:
    """Add the commands."""
    sub = command("index", _index, "list a dataset's images, with their checksums")
    _dataset(sub)
    sub.add_argument("--workers", type=positive, default=1, help="processes that read")
    sub.add_argument("--out", type=Path, required=True, help="the index to write (CSV)")

    text = "write what a dataset annotates beside its images as one table"
    sub = command("annotations", _annotations, text)
    _dataset(sub)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--out", type=Path, required=True, help="the table to write (CSV)")

    sub = command("demo-data", _demo_data, "write an embedded dataset as image files")
    sub.add_argument("name", help="digits, coco, partimagenet, revisited, davis or spair")
    sub.add_argument("--out", type=Path, required=True)


def _dataset(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", help="name of the dataset")
    add_settings(sub, DatasetSpec, _KEYS)


_KEYS = [key for key in DatasetSpec.model_fields if key not in ("name", "view")]


def _index(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.data.scan import build_index
    from vitfeat.data.unchanged import token, write_snapshot

    spec = given_settings(options, DatasetSpec, name=options.name)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    started, told = time.time_ns(), token(spec, options.out)
    index = build_index(spec, workers=options.workers)
    index.write(options.out)
    write_snapshot(spec, index, options.out, told, started)


def _annotations(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.data.annotations import ROWS
    from vitfeat.data.index import Index
    from vitfeat.data.layouts import read_annotated
    from vitfeat.data.listing import untold
    from vitfeat.data.table import write_notes
    from vitfeat.data.unchanged import hash_annotations, hashes_path
    from vitfeat.tables import write_table
    from vitfeat.text import plural

    spec = given_settings(options, DatasetSpec, name=options.name)
    hashes = hash_annotations(spec, options.out)
    index = Index.read(options.index)
    notes: list[str] = []
    kind, rows = read_annotated(spec, index, notes)
    if kind != "relevance":  # which has no places in images
        notes += untold(index)
    write_notes(options.out, notes)
    write_table(options.out, ROWS[kind], rows)
    hashes.write(hashes_path(options.out))
    logger.info(f"dataset {spec.name}: {plural(len(rows), 'row')} of {kind}")
    for note in notes:
        logger.warning(f"dataset {spec.name}: {note}")


def _demo_data(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.demo.datasets import NAMES, write
    from vitfeat.errors import ConfigError
    from vitfeat.text import nearest

    if options.name not in NAMES:
        raise ConfigError(
            f"no embedded dataset {options.name!r}{nearest(options.name, NAMES)}; there are "
            f"{', '.join(NAMES)}"
        )
    write(options.name, options.out)
