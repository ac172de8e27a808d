"""Commands about models: what is known, fetching weights, training the embedded ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitfeat.cli.arguments import WEIGHTS_FOLDER, AddCommand, from_json, weights_folder
from vitfeat.console import Console
from vitfeat.errors import ConfigError

if TYPE_CHECKING:
    from vitfeat.models.entry import ModelEntry


def add(command: AddCommand) -> None:
    """Add the commands about models."""
    text = "list the models of the catalogue, or print some as YAML for `catalog:` of a config"
    sub = command("models", _models, text)
    sub.add_argument("models", nargs="*", metavar="MODEL", help="ids of those to print")
    weights_folder(sub)

    sub = command("fetch", _fetch, "fetch published weights, check them and record what they are")
    sub.add_argument("models", nargs="*", metavar="MODEL", help="ids; all of a config's if none")
    sub.add_argument("--configfile", type=Path, help="a config, for the models of its own catalog")
    sub.add_argument("--entry", help="one model's fields as JSON, in the place of the catalogue's")
    weights_folder(sub, default=None)

    sub = command("train-demo", _train_demo, "train one of the embedded models anew")
    sub.add_argument("name")
    sub.add_argument("--out", type=Path, default=Path("results/demo/weights"))
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int)


def _models(options: argparse.Namespace, console: Console) -> None:
    if options.models:
        console.print(_as_yaml(options.models))
        return
    from vitfeat.models.entry import builtin_catalog
    from vitfeat.models.hub import weights_state
    from vitfeat.models.shapes import size_name

    rows = [("model", "family", "size", "source", "name", "weights")]
    for e in builtin_catalog().values():
        there = weights_state(e, options.weights_folder)
        rows.append((e.id, e.family, size_name(e), e.source, e.name, there))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip())


def _as_yaml(models: Sequence[str]) -> str:
    """Return entries as a config would have them."""
    import yaml

    from vitfeat.models.entry import find_entry

    entries = {
        model: find_entry(model).model_dump(mode="json", exclude={"id"}, exclude_unset=True)
        for model in models
    }
    return yaml.safe_dump({"catalog": entries}, sort_keys=False, allow_unicode=True).rstrip()


def _fetch(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.models.hub import fetch
    from vitfeat.text import size

    if options.entry is not None and len(options.models) != 1:
        raise ConfigError("--entry: is one model's; fetch the others in a command of their own")
    catalog, asked, folder = _of_config(options.configfile)
    folder = options.weights_folder or folder
    if not (models := options.models or asked):
        raise ConfigError("no model to fetch: name some, or give --configfile")
    for model_id in models:
        entry = catalog.get(model_id) or read_entry(model_id, options.entry)
        if not entry.is_fetched:
            console.print(f"{model_id}: nothing to fetch")
            continue
        # With a log file several jobs of a workflow would draw their bars at once.
        record = fetch(entry, folder, progress=options.log is None)
        revision = f" at {record.revision[:12]}" if record.revision else ""
        console.print(
            f"{model_id}: {record.repository or record.url}{revision}, {record.file}, "
            f"{size(record.bytes)}, SHA-256 {record.sha256[:12]}"
        )


def _of_config(path: Path | None) -> tuple[Mapping[str, ModelEntry], list[str], Path]:
    """Return a config's own catalogue, its models, and its folder of weights."""
    from vitfeat.models.entry import read_catalog

    if path is None:
        return {}, [], WEIGHTS_FOLDER
    from vitfeat.config.files import read_file

    config = read_file(path)
    if not isinstance(config.get("models"), list):
        raise ConfigError(f"{path}: no config of vitfeat: it has no list `models`")
    catalog = read_catalog(config.get("catalog") or {})
    return catalog, [str(m) for m in config["models"]], Path(config.get("weights") or "weights")


def read_entry(model_id: str, fields: str | None) -> ModelEntry:
    """Return an entry of the catalogue, or the one that JSON fields describe."""
    from vitfeat.models.entry import find_entry, read_catalog

    if fields is None:
        return find_entry(model_id)
    mapping = from_json(fields, "--entry")
    if not isinstance(mapping, dict):
        raise ConfigError(f"--entry: found {fields[:80]!r}; a JSON mapping is needed")
    return read_catalog({model_id: mapping})[model_id]


def _train_demo(options: argparse.Namespace, _: Console) -> None:
    from vitfeat.demo.train import train

    train(options.name, options.out, seed=options.seed, threads=options.threads)
