"""Commands about stores: made from images, looked into, checked."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vitfeat.cli.arguments import (
    MODEL,
    AddCommand,
    call_all,
    count,
    from_json,
    layer,
    of_model,
    part,
    positive,
)
from vitfeat.cli.models import read_entry
from vitfeat.cli.passes import add_pass_flags, all_ways, pass_ways
from vitfeat.cli.settings_flags import given_settings
from vitfeat.console import Console
from vitfeat.store.layout import TAPS
from vitfeat.text import plural


def add(command: AddCommand) -> None:
    """Add the commands about stores."""
    sub = command("info", _info, "say what a feature store, an index or annotations hold")
    sub.add_argument("store", type=Path, help="a store (.zarr), or a table of results/datasets")

    sub = command("verify", _verify, "read a feature store whole and check every checksum")
    sub.add_argument("store", type=Path)

    sub = command("repair", _repair, "push what is damaged of a feature store again, no more")
    sub.add_argument("store", type=Path)
    text = "(default: config.yaml, where there is one)"
    sub.add_argument("--configfile", type=Path, help=f"its config, for root and model {text}")
    sub.add_argument("--index", type=Path, help="the dataset's index (default: as in a workflow)")
    sub.add_argument("--root", type=Path, help="the dataset's folder (default: the config's)")
    sub.add_argument("--regions", type=Path, help="as of extract (default: as in a workflow)")
    sub.add_argument("--entry", metavar="JSON", help="as of extract (default: the config's)")
    sub.add_argument("--threads", type=count, default=0, help="CPU threads; 0 takes all")
    add_pass_flags(sub)

    sub = command("extract", _extract, "push a dataset through a model once, into a feature store")
    text = "ids of models; of several, {model} in --out and --manifest stands for each"
    sub.add_argument("models", nargs="+", metavar="MODEL", help=text)
    text = "a model's fields as JSON, in the place of the catalogue's; of several, one for each"
    sub.add_argument("--entry", action="append", metavar="JSON", help=text)
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--images", type=positive, help="only so many, spread over the dataset")
    chosen.add_argument("--ids", nargs="+", action="extend", help="only the images of these ids")
    sub.add_argument("--out", type=Path, required=True, help="the store to write (.zarr)")
    sub.add_argument("--manifest", type=Path, help="where its manifest goes, too")
    sub.add_argument(
        "--limits",
        help="taps that are kept for some images only, as JSON: "
        '{"attention": 3, "block_input": ["a.png", "b.png"]}',
    )
    sub.add_argument(
        "--keep",
        nargs="*",
        choices=TAPS,
        help="taps that stay; all others go into a folder beside the store, NAME.transient, which "
        "may be removed after use (default: all stay)",
    )
    sub.add_argument("--view", help='how images become inputs, as JSON: {"kind": "padded"}')
    sub.add_argument("--regions", type=Path, help="the dataset's table of regions (tap regions)")
    add_pass_flags(sub, ("taps", "masks", "layers", "dtype", "keep_bits", "precision"))
    sub.add_argument("--threads", type=count, default=0, help="CPU threads; 0 takes all")
    sub.add_argument(
        "--blocks",
        type=part,
        metavar="I/N",
        help="only the blocks of job I of N, on any machine that sees the store; a last extraction "
        "without it seals the store",
    )

    text = "turn vectors from elsewhere into a feature store"
    sub = command("import", _import, text)
    text = "a .npz, .npy, .h5 or .parquet, or a folder of .npy (docs/data.md)"
    sub.add_argument("features", type=Path, help=text)
    sub.add_argument("--model", required=True, metavar="ID", help="what they are called")
    sub.add_argument("--index", type=Path, required=True, help="the dataset's index")
    sub.add_argument("--out", type=Path, required=True, help="the store to write (.zarr)")
    sub.add_argument("--manifest", type=Path, help="where its manifest goes, too")
    text = "replace a store of other features under the same path"
    sub.add_argument("--replace", action="store_true", help=text)

    text = "write features of a store to a file, with the ids and labels of the images"
    sub = command("export", _export, text)
    sub.add_argument("store", type=Path)
    sub.add_argument("out", type=Path, help="a .parquet, .h5 or .npy (docs/data.md)")
    text = "cls (default), mean of the spatial tokens, or attention_mean"
    sub.add_argument(
        "--features", default="cls", choices=["cls", "mean", "attention_mean"], help=text
    )
    sub.add_argument("--layers", nargs="+", type=layer, default=["last"], help="default: last")
    text = "the dataset's index and folder: its images go into a .parquet, too"
    sub.add_argument("--images", nargs=2, type=Path, metavar=("INDEX", "ROOT"), help=text)


def _info(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.annotations import describe_table
    from vitfeat.store.info import describe
    from vitfeat.store.opening import open_store

    is_table = options.store.suffix == ".csv"
    for line in describe_table(options.store) if is_table else describe(open_store(options.store)):
        console.print(line)


def _verify(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.errors import StoreError
    from vitfeat.store.paths import mending
    from vitfeat.store.verify import verify

    store, damages = verify(options.store)
    if damages:
        more = f", and {len(damages) - 1} more" if len(damages) > 1 else ""
        raise StoreError(f"{store.path}: damaged at {damages[0]}{more}; {mending(store.path)}")
    console.print(f"{store.path}: whole, {store.n_images} images, every checksum right")


def _repair(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.config.parsing import read_config
    from vitfeat.data.annotations import RegionRow, read_annotations
    from vitfeat.data.index import Index
    from vitfeat.errors import ConfigError, StoreError
    from vitfeat.extraction.from_entry import extract_from_entry
    from vitfeat.extraction.settings import Settings
    from vitfeat.store.limits import chosen_rows
    from vitfeat.store.opening import open_store, said_of
    from vitfeat.store.paths import is_transient, place_of
    from vitfeat.store.repair import image_ids

    store = place_of(options.store)
    if not isinstance(store, Path):
        raise StoreError(f"{store}: only a store on a disk is repaired; extract this one again")
    if (said := said_of(store)) is None:
        open_store(store)  # it says what stands there
        raise AssertionError
    request, dataset = said["request"], store.parent.name
    path = options.configfile or Path("config.yaml")
    config = read_config(path) if options.configfile or path.exists() else None
    spec = None if config is None else config.datasets.get(dataset)
    root: Path | None = options.root or (None if spec is None else spec.root)
    if root is None:
        raise ConfigError(f"--root: say where the images of {dataset} are; no config names them")
    if options.entry is None and config and said["model"] in {m.id for m in config.models}:
        entry = config.model(said["model"])
    else:
        entry = read_entry(said["model"], options.entry)
    tables = store.absolute().parents[2] / "datasets"
    index = Index.read(options.index or tables / f"{dataset}.csv")
    if index.fingerprint != request["data"]["fingerprint"]:
        # Of some images only, such as those whose attention maps are drawn.
        index = index.only(chosen_rows(image_ids(store), index.image_id, "the store's images"))
    regions = None
    if "regions" in request:
        table = options.regions or tables / "regions" / f"{dataset}.csv"
        regions = read_annotations(table, RegionRow)
    aside = [tap for tap in request["taps"] if is_transient(store, tap)]
    sealed = extract_from_entry(
        entry,
        index,
        root,
        store,
        Settings.of_request(request, **all_ways(options), repair=True),
        weights_folder=options.weights_folder,
        keep=[tap for tap in request["taps"] if tap not in aside] if aside else None,
        annotated=regions,
        progress=console.progress,
    )
    assert sealed is not None  # it is no part
    console.print(f"{store}: whole, {sealed['forward_images']} images")


def _extract(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.annotations import RegionRow, read_annotations
    from vitfeat.data.index import Index
    from vitfeat.errors import ConfigError, StoreError
    from vitfeat.extraction.from_entry import extract_from_entry
    from vitfeat.extraction.settings import Settings
    from vitfeat.files import write_json
    from vitfeat.store.limits import chosen_rows
    from vitfeat.store.paths import Url, manifest_path, place_of

    models, entries = options.models, options.entry or [None] * len(options.models)
    if len(entries) != len(models):
        raise ConfigError(f"--entry: found {len(entries)} for {plural(len(models), 'model')}")
    for flag, path in (("--out", options.out), ("--manifest", options.manifest)):
        if path is not None and len(models) > 1 and MODEL not in str(path):
            raise ConfigError(f"{flag}: found one path for {len(models)} models; it needs {MODEL}")
    out = place_of(options.out)
    if options.keep is not None and isinstance(out, Url):
        raise StoreError(f"{out}: --keep is for stores on a disk: what goes stands behind links")
    index = Index.read(options.index)
    if chosen := options.ids or options.images:
        index = index.only(chosen_rows(chosen, index.image_id, "the chosen images"))
    told = {"view": options.view, "limits": options.limits}
    settings = given_settings(
        options,
        Settings,
        {key: from_json(text, f"--{key}") for key, text in told.items() if text is not None},
        part=options.blocks,
        **pass_ways(options),
    )
    annotated = None if options.regions is None else read_annotations(options.regions, RegionRow)
    several = len(models) > 1

    def extract_model(model: str, fields: str | None) -> None:
        place = place_of(of_model(options.out, model))
        sealed = extract_from_entry(
            read_entry(model, fields),
            index,
            options.root,
            place,
            settings,
            weights_folder=options.weights_folder,
            keep=options.keep,
            annotated=annotated,
            # Models come one after the other: how far the job is depends on which one it is at.
            progress=partial(console.progress, at_once=several),
        )
        manifest = options.manifest and of_model(options.manifest, model)
        if sealed is not None and manifest not in (None, manifest_path(place)):
            write_json(manifest, sealed)

    calls = [
        (model if several else "", partial(extract_model, model, fields))
        for model, fields in zip(models, entries, strict=True)
    ]
    call_all(calls, console)


def _import(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.index import Index
    from vitfeat.data.vectors import read_vectors
    from vitfeat.extraction.importing import import_vectors
    from vitfeat.files import write_json
    from vitfeat.store.paths import manifest_path, place_of

    index, place = Index.read(options.index), place_of(options.out)
    with console.progress(len(index), options.model) as done:
        sealed = import_vectors(
            read_vectors(options.features),
            index,
            place,
            options.model,
            replace=options.replace,
            on_images=done,
        )
    if options.manifest not in (None, manifest_path(place)):
        write_json(options.manifest, sealed)


def _export(options: argparse.Namespace, console: Console) -> None:
    from vitfeat.data.index import Index
    from vitfeat.jobs.export import export_features
    from vitfeat.store.opening import open_store

    images = None
    if options.images is not None:
        index, root = options.images
        images = Index.read(index), root
    n = export_features(
        open_store(options.store), options.out, options.features, options.layers, images=images
    )
    console.print(f"{options.out}: {options.features} of {plural(n, 'image')}")
