"""The command line: parse, call, write. The workflow's rules and people use the same commands.

Every handler imports what it needs itself: importing torch takes seconds, and most jobs of a
workflow do without.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vitfeat
from vitfeat.console import Console
from vitfeat.errors import ConfigError, VitfeatError
from vitfeat.store.layout import TAPS, TOKEN_ARRAYS

if TYPE_CHECKING:
    from vitfeat.models.entry import ModelEntry

Handler = Callable[[argparse.Namespace, Console], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 behind one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    with _console(options.log) as console:
        try:
            options.handler(options, console)
        except VitfeatError as error:
            console.error(str(error))
            return 1
        except BrokenPipeError:  # `vitfeat models | head`
            return 0
        except OSError as error:
            # A full disk, a folder that may not be written, a name that is too long.
            where = f"{error.filename}: " if error.filename else ""
            console.error(f"{where}{error.strerror or error}; nothing is left half written")
            return 1
        except KeyboardInterrupt:
            console.error("interrupted")
            return 130
        except Exception:
            console.bug()
            raise
    return 0


def _console(log: Path | None) -> Console:
    try:
        return Console(log)
    except OSError as error:
        sys.exit(f"vitfeat: error: --log {log}: {error.strerror}; choose another path")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vitfeat",
        description="Look inside Vision Transformers: features of every layer, extracted once.",
    )
    parser.add_argument("--version", action="version", version=vitfeat.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--log", type=Path, help="write the messages to this file")
        sub.set_defaults(handler=handler)
        return sub

    sub = command("models", _models, "list the models of the catalogue")
    _weights_folder(sub)

    sub = command("fetch", _fetch, "fetch published weights, check them and record what they are")
    sub.add_argument("models", nargs="*", metavar="MODEL", help="ids; all of a config's if none")
    sub.add_argument("--configfile", type=Path, help="a config, for the models of its own catalog")
    sub.add_argument("--entry", help="one model's fields as JSON, in the place of the catalogue's")
    _weights_folder(sub, default=None)

    sub = command("info", _info, "say what a feature store holds")
    sub.add_argument("store", type=Path)

    sub = command("verify", _verify, "read a feature store whole and check every checksum")
    sub.add_argument("store", type=Path)

    sub = command("index", _index, "list a dataset's images, with their checksums")
    sub.add_argument("name", help="name of the dataset")
    sub.add_argument("--layout", required=True, help="folder, flat, list, imagenet50 or digits")
    sub.add_argument("--root", required=True, help="the dataset's folder")
    sub.add_argument("--split", help="first-level folder to use")
    sub.add_argument("--list", help="text file that lists the images (layout list)")
    sub.add_argument("--per-class", type=int, help="first so many valid images of each class")
    sub.add_argument("--limit", type=int, help="first so many valid images")
    sub.add_argument("--on-error", help="stop (default) at a broken image, or skip it")
    sub.add_argument("--min-side", type=int, help="smallest side of an image in pixels")
    sub.add_argument("--max-megapixels", type=float, help="largest image")
    sub.add_argument("--workers", type=_positive, default=1, help="processes that read")
    sub.add_argument("--out", type=Path, required=True, help="the index to write (CSV)")

    sub = command("extract", _extract, "push a dataset through a model once, into a feature store")
    sub.add_argument("model", help="id of the model")
    sub.add_argument("--entry", help="the model's fields as JSON, in the place of the catalogue's")
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    sub.add_argument("--out", type=Path, required=True, help="the store to write (.zarr)")
    sub.add_argument("--taps", nargs="+", default=["cls", "spatial"], choices=TAPS)
    sub.add_argument("--layers", nargs="+", type=_layer, default=["all"])
    sub.add_argument("--dtype", default="float16", choices=["float16", "float32"])
    sub.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16", "fp16"])
    sub.add_argument("--batch-size", type=_positive, default=32)
    sub.add_argument("--device", default="auto")
    sub.add_argument("--threads", type=_count, default=0, help="CPU threads; 0 takes all")
    sub.add_argument("--workers", type=_workers, default=None, help="decoding processes, or auto")
    sub.add_argument("--replace", action="store_true", help="replace a store from other settings")
    _weights_folder(sub)

    sub = command("gram", _gram, "compute the Gram matrix of every layer of a store")
    sub.add_argument("store", type=Path)
    sub.add_argument("--tokens", required=True, choices=list(TOKEN_ARRAYS))
    sub.add_argument(
        "--without-cls",
        choices=["leave_out", "mean"],
        default="leave_out",
        help="what stands in for the CLS token of a model that has none",
    )
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--add", type=Path, nargs="*", default=[], help="Gram files of part of them")
    sub.add_argument("--device", default="auto")
    sub.add_argument(
        "--max-mb", type=_positive, default=2048, help="bound on the features in memory"
    )

    sub = command("cka", _cka, "compute the CKA of two models from their Gram matrices")
    sub.add_argument("gram_a", type=Path)
    sub.add_argument("gram_b", type=Path)
    sub.add_argument("--estimators", nargs="+", default=["debiased"])
    sub.add_argument("--batch-size", type=_positive, default=256)
    sub.add_argument("--seed", type=_count, default=0)
    sub.add_argument("--out", type=Path, required=True)

    sub = command("plot-cka", _plot_cka, "draw the CKA of all pairs, and of the last layers")
    sub.add_argument("folder", type=Path, help="where {dataset}/{tokens}/{a}--{b}.csv are")
    sub.add_argument("--datasets", nargs="+", required=True)
    sub.add_argument("--tokens", nargs="+", required=True)
    sub.add_argument("--estimator", help="of those in the tables, the one to draw")
    sub.add_argument("--models", required=True, help="[{id, label, family}, ...] as JSON")
    sub.add_argument("--all", type=Path, required=True, dest="out_all")
    sub.add_argument("--last-layer", type=Path, required=True)

    sub = command("demo-digits", _demo_digits, "write the embedded dataset as image files")
    sub.add_argument("--out", type=Path, required=True)

    sub = command("train-demo", _train_demo, "train one of the embedded models anew")
    sub.add_argument("name")
    sub.add_argument("--out", type=Path, default=Path("results/demo/weights"))
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int)
    return parser


_WEIGHTS_FOLDER = Path("weights")


def _weights_folder(
    parser: argparse.ArgumentParser, default: Path | None = _WEIGHTS_FOLDER
) -> None:
    parser.add_argument(
        "--weights-folder",
        type=Path,
        default=default,
        help="where fetched weights are recorded (default: weights, or as the config says)",
    )


def _layer(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _workers(text: str) -> int | None:
    return None if text == "auto" else _count(text)


def _models(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.models.entry import builtin_catalog
    from vitfeat.models.shapes import size_name

    rows = [("model", "family", "size", "source", "name", "weights")]
    for e in builtin_catalog().values():
        there = _weights_there(e, options.weights_folder)
        rows.append((e.id, e.family, size_name(e), e.source, e.name, there))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip())


def _weights_there(entry: ModelEntry, folder: Path) -> str:
    """Say whether a model's weights are on this machine."""
    from vitfeat.models.hub import source_of
    from vitfeat.weights.records import present

    if not entry.is_fetched:
        return {"demo": "built in", "noise": "none"}.get(entry.source, "untrained")
    try:
        return "present" if present(source_of(entry), folder, entry.id) else "absent"
    except VitfeatError:  # one record is no reason to list nothing
        return "damaged record"


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
        entry = catalog.get(model_id) or _entry(model_id, options.entry)
        if not entry.is_fetched:
            console.print(f"{model_id}: nothing to fetch")
            continue
        # With a log file several jobs of a workflow would draw their bars at once.
        record = fetch(entry, folder, log=console.log, progress=options.log is None)
        revision = f" at {record.revision[:12]}" if record.revision else ""
        console.print(
            f"{model_id}: {record.repository or record.url}{revision}, {record.file}, "
            f"{size(record.bytes)}, SHA-256 {record.sha256[:12]}"
        )


def _of_config(path: Path | None) -> tuple[dict[str, ModelEntry], list[str], Path]:
    """Return a config's own catalogue, its models, and its folder of weights."""
    from vitfeat.models.entry import read_catalog

    if path is None:
        return {}, [], _WEIGHTS_FOLDER
    import yaml

    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict) or not isinstance(config.get("models"), list):
        raise ConfigError(f"{path}: no config of vitfeat: it has no list `models`")
    catalog = read_catalog(config.get("catalog") or {})
    return catalog, [str(m) for m in config["models"]], Path(config.get("weights") or "weights")


def _entry(model_id: str, fields: str | None) -> ModelEntry:
    """Return an entry of the catalogue, or the one that JSON fields describe."""
    from vitfeat.models.entry import find_entry, read_catalog

    if fields is None:
        return find_entry(model_id)
    mapping = _json(fields, "--entry")
    if not isinstance(mapping, dict):
        raise ConfigError(f"--entry: found {fields[:80]!r}; a JSON mapping is needed")
    return read_catalog({model_id: mapping})[model_id]


def _info(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.store.info import describe
    from vitfeat.store.reader import open_store

    for line in describe(open_store(options.store)):
        console.print(line)


def _verify(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.errors import StoreError
    from vitfeat.store.verify import verify

    store, damages = verify(options.store)
    if damages:
        more = f", and {len(damages) - 1} more" if len(damages) > 1 else ""
        raise StoreError(
            f"{options.store}: damaged at {damages[0]}{more}; remove the store and extract it again"
        )
    console.print(f"{options.store}: whole, {store.n_images} images, every checksum right")


def _index(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.index import build_index
    from vitfeat.data.spec import DatasetSpec

    keys = ("layout", "root", "split", "list", "per_class", "limit", "on_error", "min_side")
    given = {k: getattr(options, k) for k in (*keys, "max_megapixels")}
    spec = DatasetSpec.from_config(options.name, given)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    build_index(spec, workers=options.workers, log=console.log).write(options.out)


def _extract(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.index import Index
    from vitfeat.extract.run import Settings, extract
    from vitfeat.files import write_json
    from vitfeat.models.loading import load_backbone
    from vitfeat.store.reader import manifest_path

    index = Index.read(options.index)
    entry = _entry(options.model, options.entry)
    backbone = load_backbone(entry, folder=options.weights_folder, log=console.log)
    with console.progress(len(index), options.model) as advance:
        sealed = extract(
            backbone,
            index,
            options.root,
            options.out,
            Settings(
                taps=options.taps,
                layers=options.layers,
                dtype=options.dtype,
                precision=options.precision,
                batch_size=options.batch_size,
                device=options.device,
                threads=options.threads,
                workers=options.workers,
                replace=options.replace,
            ),
            log=console.log,
            on_images=advance,
        )
    # Beside the store always: readers hold the two together.
    write_json(manifest_path(options.out), sealed)


def _gram(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.jobs import write_grams

    write_grams(
        options.store,
        options.tokens,
        options.out,
        without_cls=options.without_cls,
        parts=options.add,
        max_bytes=options.max_mb * 2**20,
        device=options.device,
        log=console.log,
    )


def _cka(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.analysis.cka import cka
    from vitfeat.analysis.gramfile import GramFile
    from vitfeat.analysis.tables import Row, table, write_csv

    a = GramFile(options.gram_a)
    b = a if options.gram_a == options.gram_b else GramFile(options.gram_b)
    rows: list[Row] = []
    for estimator in options.estimators:
        values = cka(
            a,
            b,
            estimator=estimator,
            batch_size=options.batch_size,
            seed=options.seed,
            log=console.log,
        )
        rows += table(values, a, b, estimator=estimator)
    write_csv(options.out, rows)


def _plot_cka(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.plan import cka_tables
    from vitfeat.plots.cka import figures_from_csv

    models = _json(options.models, "--models")
    ids = [m["id"] for m in models]
    tables = cka_tables(options.folder, options.datasets, options.tokens, ids)
    figures_from_csv(
        tables, models, options.out_all, options.last_layer, estimator=options.estimator
    )


def _demo_digits(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.demo import digits

    digits.write(options.out)


def _train_demo(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.demo.train import train

    train(options.name, options.out, seed=options.seed, threads=options.threads, log=console.log)


def _json(text: str, flag: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: not JSON ({error}): {text[:80]}") from error


if __name__ == "__main__":
    sys.exit(main())
