"""What a config takes of the disk, before anything of it is there.

Bytes are those of the numbers, so that a disk with as much room is large enough: what compression
saves is an estimate.
"""

from __future__ import annotations

import csv
import functools
import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.config.config import Config
from vitfeat.data.containers import containers_of
from vitfeat.data.folders import Tally
from vitfeat.data.layouts import find
from vitfeat.data.scan import Wanted
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo.datasets import embedded_root
from vitfeat.disk import CHOSEN, FEATURES, GRAMS, TRANSIENT, Item
from vitfeat.errors import ConfigError, DataError
from vitfeat.files import existing
from vitfeat.models.entry import ModelEntry
from vitfeat.models.layers import select_layers
from vitfeat.models.shapes import Shape, guess_shape
from vitfeat.store.arrays import EXACT_TAPS, ArraySpec, Geometry, arrays_of
from vitfeat.store.layout import Layout, available_taps, block_for
from vitfeat.store.opening import said_of
from vitfeat.store.paths import manifest_path
from vitfeat.store.provenance import differences
from vitfeat.text import plural, size, some

PIECES = "pieces of shards, until their blocks are all there"
_OF_STORES = (FEATURES, TRANSIENT, PIECES)

# Bytes of containers whose images are counted while jobs are planned.
_MOST_COUNTED = 4 * 2**30

# Stores that a line names.
_FEW_STORES = 3

NOT_ENOUGH = "NOT ENOUGH"

COMPRESSED = 0.9
"""What the codec leaves of a store's bytes: 0.80 to 0.94 were measured (docs/paper.md)."""


@dataclass(frozen=True)
class Size:
    """A dataset's images, their mean aspect (long over short side), and regions an image."""

    images: int
    aspect: float = 4 / 3
    regions: float = 0.0


# As published, by layout and split; the largest of a layout whose splits are not told apart.
_PUBLISHED: Mapping[tuple[str, str | None], Size] = {
    ("digits", "train"): Size(1_198),
    ("digits", "test"): Size(599),
    ("imagenet", "train"): Size(1_281_167),
    ("imagenet", "val"): Size(50_000),
    ("imagenet50", "train"): Size(65_000),
    ("imagenet50", "val"): Size(2_500),
    # 36,335 objects that are no crowds, in the 4,952 images of val2017.
    ("coco", "val2017"): Size(4_952, regions=7.3),
    ("coco", "train2017"): Size(117_266, regions=7.3),
    # About 112,000 parts in 24,000 images; and one object.
    ("partimagenet", None): Size(24_000, regions=5.6),
    ("revisited", None): Size(6_392),
    ("davis", "val"): Size(1_999, aspect=854 / 480),
    ("davis", "train"): Size(4_209, aspect=854 / 480),
    # 18 categories of n images give the 12,234 pairs as n (n - 1) of each: n is about 27.
    ("spair", "test"): Size(490),
    ("spair", None): Size(1_800),
}
# The annotated ones that are made from the digits have fewer.
_EMBEDDED = Size(100, regions=4.0)
_SUPERCLASSES = 11
_CLASSES = {"imagenet": 1000, "imagenet50": 50, "digits": 10}


def rows_of(table: Path) -> int | None:
    """Return how many rows a table of ``results/datasets`` has; None where it is not there."""
    if not table.exists():
        return None
    with table.open("rb") as file:
        return sum(1 for _ in file) - 1


def dataset_size(config: Config, name: str) -> Size | None:
    """Return how large a dataset is: by its index, else as published, else by counting files.

    None where none of these tells it.
    """
    spec, folder = config.datasets[name], config.results / "datasets"
    embedded = spec.root == embedded_root(config.results, spec.layout)
    usual = _EMBEDDED if embedded and spec.layout != "digits" else published(spec)
    index = folder / f"{name}.csv"
    if (n := rows_of(index)) is None:
        return usual or _counted(spec)
    regions = rows_of(folder / "regions" / f"{name}.csv")
    return Size(
        n,
        _mean_aspect(index) if config.view(name).kind == "dense" else Size.aspect,
        regions / n if regions is not None and n else usual.regions if usual else 0.0,
    )


def published(spec: DatasetSpec) -> Size | None:
    """Return how large a dataset of an official layout is at most, as far as it is asked for."""
    known = _PUBLISHED.get((spec.layout, spec.split), _PUBLISHED.get((spec.layout, None)))
    if known is None:
        return None
    parts = [(spec.per_class, _CLASSES.get(spec.layout)), (spec.per_superclass, _SUPERCLASSES)]
    bounds = [known.images, *(a * b for a, b in parts if a and b), spec.limit or known.images]
    return replace(known, images=min(bounds))


def _counted(spec: DatasetSpec) -> Size | None:
    folder = spec.root / spec.split if spec.split else spec.root
    if spec.containers:
        return _listed(spec)
    try:
        if spec.list is not None:
            n = sum(1 for line in spec.list.read_bytes().splitlines() if line.strip())
        elif folder.is_dir():
            counts = [len(files) for _, _, files in os.walk(folder)]
            n = sum(min(count, spec.per_class or count) for count in counts)
        else:
            return None
    except OSError:
        return None
    return Size(min(n, spec.limit or n))


@functools.cache
def _listed(spec: DatasetSpec) -> Size | None:
    """Count what containers hold, unless it takes long."""
    try:
        n_bytes = sum((spec.root / container).stat().st_size for container in containers_of(spec))
        if n_bytes > _MOST_COUNTED:
            return None
        wanted, n = Wanted(spec), 0
        for candidate in find(spec, Tally()).candidates:
            if wanted.of(candidate.label):
                wanted.take(candidate.label)
                n += 1
    except (DataError, OSError):
        return None
    return Size(n)


def _mean_aspect(index: Path) -> float:
    with index.open(newline="", encoding="utf-8") as file:
        sides = [(int(row["width"]), int(row["height"])) for row in csv.DictReader(file)]
    return sum(max(pair) / min(pair) for pair in sides) / len(sides) if sides else Size.aspect


def grid(config: Config, dataset: str, entry: ModelEntry, aspect: float) -> tuple[int, int]:
    """Return rows and columns of tokens of a dataset's average image, on its side."""
    shape, view = guess_shape(entry), config.view(dataset)
    if view.kind != "dense":
        own = shape.image_size // shape.patch
        return own, own
    side, pixels = view.side
    short, long = (pixels, pixels * aspect) if side == "short" else (pixels / aspect, pixels)
    return int(short) // shape.patch, int(long) // shape.patch


class StoredTap(NamedTuple):
    """A tap of a store that is not there yet: its arrays, and how many entries they have."""

    name: str
    arrays: Sequence[ArraySpec]
    n_entries: int


def _stored(
    config: Config, dataset: str, entry: ModelEntry, sizes: Mapping[str, Size]
) -> list[StoredTap]:
    if entry.is_imported:  # a vector an image, which is little
        return []
    shape, facts = guess_shape(entry), sizes[dataset]
    ragged = config.view(dataset).kind == "dense"
    geometry = _geometry(config, shape, ragged=ragged)
    entries = {tap: min(n, facts.images) for tap, n in config.limits(dataset).items()}
    entries["regions"] = round(facts.images * facts.regions)
    if ragged:
        entries["spatial"] = facts.images * math.prod(grid(config, dataset, entry, facts.aspect))
    return [
        StoredTap(
            tap,
            arrays_of(tap, geometry, config.extraction.dtype),
            entries.get(tap, facts.images),
        )
        for tap in available_taps(geometry, config.taps(dataset))
    ]


def store_items(
    config: Config, dataset: str, entry: ModelEntry, sizes: Mapping[str, Size]
) -> Iterator[Item]:
    """Yield the bytes of each tap of a store."""
    keep = config.extraction.keep
    for tap in _stored(config, dataset, entry, sizes):
        n_bytes = tap.n_entries * sum(array.bytes_per_entry for array in tap.arrays)
        kind = FEATURES if keep is None or tap.name in keep else TRANSIENT
        yield Item(kind, dataset, entry.id, tap.name, n_bytes)


def pieces_bytes(config: Config, dataset: str, entry: ModelEntry, sizes: Mapping[str, Size]) -> int:
    """Return what stands beside the shards of a store at most, while it is written by one job."""
    n_images, taps = sizes[dataset].images, _stored(config, dataset, entry, sizes)
    arrays = [(array, tap.n_entries) for tap in taps for array in tap.arrays]
    if not n_images or not arrays:
        return 0
    whole = [array for array, n_entries in arrays if n_entries == n_images]
    block = block_for(((array.bytes_per_entry, n) for array, n in arrays), n_images)
    # Of some images, or with several entries an image: where their shards end is not known yet.
    some = sum(array.bytes_per_entry * n for array, n in arrays if n != n_images)
    return some + Layout(tuple(whole), n_images, block).pieces_bytes


def _geometry(config: Config, shape: Shape, *, ragged: bool = False) -> Geometry:
    side = shape.image_size // shape.patch
    try:
        layers = select_layers(shape.depth, config.extraction.layers)
    except ConfigError:  # of a depth that was guessed
        layers = list(range(shape.depth))
    return Geometry(
        layers=tuple(layers),
        width=shape.width,
        heads=shape.heads,
        grid=(side, side),
        has_cls=True,
        n_registers=0,
        ragged=ragged,
    )


def planned(
    config: Config, sizes: Mapping[str, Size], again: Collection[tuple[str, str]] = ()
) -> list[Item]:
    """Return what a config takes on the disk at most; tables and figures are little beside it.

    Datasets whose sizes are not given are left out.
    """
    items: list[Item] = []
    pieces: list[Item] = []
    for dataset in (name for name in config.datasets if name in sizes):
        for entry in config.models:
            items += store_items(config, dataset, entry, sizes)
            items += _made_beside(config, dataset, entry, sizes[dataset])
            n_bytes = pieces_bytes(config, dataset, entry, sizes)
            pieces.append(Item(PIECES, dataset, entry.id, "", n_bytes))
    # Of one store at a time: they are gone when it is sealed.
    to_come = [item for item in pieces if not is_there(config, item, again)]
    items += sorted(to_come, key=lambda item: item.n_bytes)[-1:]
    return [item for item in items if item.n_bytes]


def _made_beside(config: Config, dataset: str, entry: ModelEntry, facts: Size) -> Iterator[Item]:
    """Yield a model's Gram matrices, and the store of images whose attention is drawn."""
    geometry = _geometry(config, guess_shape(entry))
    compared = [config.settings(CkaSettings), config.settings(SimilaritySettings)]
    kinds = {k for a in compared if a is not None and dataset in a.datasets for k in a.tokens}
    for kind in sorted(kinds):
        n_bytes = 4 * facts.images**2 * len(geometry.layers)
        yield Item(GRAMS, dataset, entry.id, kind, n_bytes)
    maps = config.settings(AttentionMapSettings)
    if maps is not None and dataset in maps.datasets and not entry.is_imported:
        n = maps.images if isinstance(maps.images, int) else len(maps.images)
        (array,) = arrays_of("attention", geometry, config.extraction.dtype)
        n_bytes = min(n, facts.images) * array.bytes_per_entry
        yield Item(CHOSEN, dataset, entry.id, "attention", n_bytes)


def compressed(config: Config, items: Sequence[Item]) -> float:
    """Estimate what some items take once they are compressed, and rounded where it is asked."""
    bits, half = config.extraction.keep_bits, config.extraction.dtype == "float16"
    # A bit of mantissa that is rounded away is gone (docs/precision.md).
    dropped = 0.0 if bits is None else ((10 if half else 23) - bits) / (16 if half else 32)

    def share(item: Item) -> float:
        if item.kind not in (FEATURES, TRANSIENT, CHOSEN):
            return 1.0
        return COMPRESSED - (0.0 if item.array in EXACT_TAPS else dropped)

    return sum(item.n_bytes * share(item) for item in items)


def is_there(config: Config, item: Item, again: Collection[tuple[str, str]] = ()) -> bool:
    """Return whether what is planned was made already, but for stores that are made ``again``."""
    path = {
        **dict.fromkeys(_OF_STORES, f"features/{item.dataset}/{item.model}.json"),
        CHOSEN: f"attention_maps/stores/{item.dataset}/{item.model}.json",
        GRAMS: f"cka/gram/{item.dataset}/{item.array}/{item.model}.safetensors",
    }.get(item.kind)
    if item.kind in _OF_STORES and (item.dataset, item.model) in again:
        return False
    return path is not None and (config.results / path).exists()


def extracted_again(config: Config) -> dict[tuple[str, str], str]:
    """Return datasets and models whose stores lack something that is asked, and what it is."""
    reasons = {}
    pushed = (m.id for m in config.models if not m.is_imported)
    for dataset, model in product(config.datasets, pushed):
        store = config.results / f"features/{dataset}/{model}.zarr"
        said = said_of(store) if manifest_path(store).exists() else None
        if said is not None and (reason := _lack(config, dataset, said)):
            reasons[dataset, model] = reason
    return reasons


def _lack(config: Config, dataset: str, said: Mapping[str, Any]) -> str:
    """Return in words what a store lacks, as far as the config alone tells it."""
    request, has_branches = said["request"], said.get("has_branches", True)
    own = Geometry((), 0, 0, (0, 0), said["has_cls"], said["n_registers"], has_branches)
    taps = available_taps(own, config.taps(dataset))
    if absent := [tap for tap in taps if tap not in request["taps"]]:
        return f"without {', '.join(absent)}"
    n_images = request["data"]["n_images"]
    limits = {t: n for t, n in config.limits(dataset).items() if t in taps and n < n_images}
    asked = config.extraction.model_dump(include={"dtype", "precision", "keep_bits"})
    other = differences(request, {**request, **asked, "taps": taps, "limits": limits})
    return f"of other settings ({other})" if other else ""


def known_sizes(config: Config) -> dict[str, Size]:
    """Return the sizes of the datasets that anything is made from, as far as they are known."""
    found = {n: dataset_size(config, n) for n in config.datasets if config.reads(n)}
    return {name: facts for name, facts in found.items() if facts is not None}


def disk_lines(config: Config) -> list[str]:
    """Say in few lines what is still to be written and whether the disk has it; none if nothing.

    Stores that are extracted again stay until the new ones are whole.
    """
    sizes, again = known_sizes(config), extracted_again(config)
    items = [item for item in planned(config, sizes, again) if not is_there(config, item, again)]
    to_come = [item for item in items if item.kind != PIECES]
    if not to_come:
        return []
    stores = defaultdict(list)
    for (dataset, model), reason in again.items():
        stores[reason].append(f"{dataset} {model}")
    lines = []
    if again:
        what = "; ".join(
            f"{plural(len(names), 'store')} {reason}: {some(names, _FEW_STORES)}"
            for reason, names in stores.items()
        )
        n_bytes = sum(
            i.n_bytes for i in to_come if (i.dataset, i.model) in again and i.kind in _OF_STORES
        )
        lines.append(f"extracted again, at most {size(n_bytes)}: {what}")
    total = sum(item.n_bytes for item in items)
    free = free_bytes(config.results)
    unknown = [n for n in config.datasets if config.reads(n) and n not in sizes]
    left_out = f", without {', '.join(unknown)} (not there to be counted)" if unknown else ""
    goes = sum(item.n_bytes for item in items if item.kind == TRANSIENT)
    of_it = f", of which {size(goes)} go after use" if goes else ""
    short = f": {NOT_ENOUGH}" if total > free else ""
    lines.append(
        f"disk: at most {size(total)} to write{of_it}{left_out}, about "
        f"{size(compressed(config, items))} compressed; {size(free)} free{short}"
    )
    if total > free / 10:
        lines.append(
            f"  most of it: {_largest(to_come, 'dataset', 3)}; {_largest(to_come, 'model', 1)}; "
            "all of it: vitfeat du --plan CONFIG"
        )
    return lines


def _largest(items: Sequence[Item], field: str, n: int) -> str:
    sums = Counter[str]()
    for item in items:
        sums[getattr(item, field)] += item.n_bytes
    return ", ".join(f"{name} {size(n_bytes)}" for name, n_bytes in sums.most_common(n))


def free_bytes(folder: Path) -> int:
    """Return what is free on the disk that a folder is, or will be, on."""
    return shutil.disk_usage(existing(folder)).free
