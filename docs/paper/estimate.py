"""Make the tables of docs/paper.md anew: what configs/paper.yaml costs in bytes and hours.

    python docs/paper/estimate.py

Bytes come from the plan of each store, hours from numbers of operations and from the rates below,
which the page states. A table stands between two comments of its name, and is replaced.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from vitfeat.analyses.regions.settings import RegionSettings
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.config.config import Config
from vitfeat.config.parsing import read_config
from vitfeat.disk import GRAMS, TRANSIENT
from vitfeat.models.entry import ModelEntry
from vitfeat.models.shapes import Shape, guess_shape, size_name
from vitfeat.plan.disk import PIECES, Size, compressed, grid, planned, store_items

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/paper.md"


SIZES: Mapping[str, Size] = {
    "imagenet-50": Size(5_000),
    "imagenet-train": Size(1_281_167),
    "imagenet-val": Size(50_000),
    "coco": Size(4_952, regions=7.3),
    "partimagenet": Size(5_500, regions=5.6),
    "coco-dense": Size(1_000, regions=7.3),
    "partimagenet-dense": Size(1_100, regions=5.6),
    "roxford5k": Size(5_063),
    "rparis6k": Size(6_392),
    "davis": Size(1_999, aspect=854 / 480),
    "spair": Size(490),
}
"""The paper's datasets, as published; vitfeat/plan/disk.py says where the averages come from."""

SHOWN = ("supervised-s16", "supervised-b16", "supervised-b8", "clip-l14", "mae-h14")
"""Models with a column of their own."""

ANY_SIZE = "dino"
"""The family of the paper whose dense features come from one pass (docs/methods.md)."""

GPU_FP32, GPU_BF16, OLDER_FP32 = 25e12, 200e12, 12e12
"""Operations a second that an H100 sustains in fp32 and bf16, and an A100 in fp32."""
RATES = {"H100, fp32": GPU_FP32, "H100, bf16": GPU_BF16, "A100, fp32": OLDER_FP32}
DECODE_SECONDS, CORES = 0.006, 16
"""To decode and resize an image on one core, and the cores beside a GPU."""
WRITE = 6e8
"""Bytes a second that one job packs and writes (docs/benchmarks.md: 55 MiB in 91 ms)."""
THREADS = 8
"""Cores that a job of the workflow takes."""
START = 30
"""Seconds from a job's start to its first batch: imports, weights, their hash, the probe."""
CORE = 60e9
"""Operations a second of a CPU core in float32 products."""
READ = 5e7
"""Numbers a second that are read from a store and summed."""

KMEANS = 2 * 28.8 / (12 * 5_000 * 768 * 50 * 10)
"""Core seconds of k-means a layer, row, channel, cluster and start (docs/benchmarks.md)."""
PROPAGATION = 0.25 / (28 * 49 * 768)
"""Core seconds of label propagation a frame, layer, token and channel, eight frames of context."""
SCORING = 0.5
"""Core seconds for masks and scores of a frame and layer."""
POINTS = 12_234 * 7
"""Keypoints of SPair-71k's test pairs."""


def main() -> None:
    """Put the tables into the page."""
    config = paper_config()
    page = PAGE.read_text("utf-8")
    for name, table in tables(config).items():
        page = replaced(page, name, table)
    PAGE.write_text(page, "utf-8")


def paper_config() -> Config:
    """Read configs/paper.yaml."""
    return read_config(ROOT / "configs/paper.yaml")


def tables(config: Config) -> dict[str, str]:
    """Return all tables, as Markdown, by name."""
    return {
        "bytes": bytes_table(config),
        "peak": peak_table(config),
        "gpu": gpu_table(config),
        "cpu": cpu_table(config),
        "gpus": gpus_table(config),
    }


def replaced(page: str, name: str, table: str) -> str:
    """Return the page with the table between the comments of its name."""
    start, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
    found = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.S)
    if len(found.findall(page)) != 1:
        raise ValueError(f"{PAGE}: expected {start} ... {end} once")
    return found.sub(lambda _: f"{start}\n\n{table}\n{end}", page)


def store_bytes(config: Config, dataset: str, entry: ModelEntry) -> int:
    """Return the uncompressed bytes of a store."""
    return sum(item.n_bytes for item in store_items(config, dataset, entry, SIZES))


def bytes_table(config: Config) -> str:
    """Tabulate bytes of stores, uncompressed."""
    shown = [config.model(name) for name in SHOWN]
    heads = ["dataset", "images", "taps", *(size_name(m).split("@")[0] for m in shown)]
    rows, totals = [], dict.fromkeys((*SHOWN, "all"), 0)

    def add(lead: list[str], of: Callable[[ModelEntry], int]) -> None:
        found = {model.id: of(model) for model in config.models}
        for name in SHOWN:
            totals[name] += found[name]
        totals["all"] += sum(found.values())
        rows.append([*lead, *(gigabytes(found[m]) for m in SHOWN), gigabytes(sum(found.values()))])

    items = planned(config, SIZES)

    def grams(model: ModelEntry) -> int:
        return sum(i.n_bytes for i in items if (i.kind, i.model) == (GRAMS, model.id))

    for name in config.datasets:
        # No model of the paper has registers.
        taps = ", ".join(f"`{tap}`" for tap in config.taps(name) if tap != "registers")
        lead = [f"`{name}`", f"{SIZES[name].images:,}", taps]
        add(lead, partial(store_bytes, config, name))
    add(["Gram matrices", "", ""], grams)
    rows.append(["**all**", "", "", *(gigabytes(total) for total in totals.values())])
    return markdown([*heads, f"all {len(config.models)}"], rows)


def peak_table(config: Config) -> str:
    """Tabulate the peak of disk with and without what saves some of it."""
    rows = []
    for changes in ({}, {"keep_bits": 8}, {"keep": ["cls"]}, {"keep": ["cls"], "keep_bits": 8}):
        changed = replace(config, extraction=config.extraction.but(**changes))
        items = planned(changed, SIZES)
        goes = [item for item in items if item.kind == TRANSIENT]
        stays = [item for item in items if item.kind not in (TRANSIENT, PIECES)]
        stores = Counter[tuple[str, str]]()
        for item in goes:
            stores[item.dataset, item.model] += item.n_bytes
        largest = [key for key, _ in stores.most_common(1)]
        in_turn = [i for i in items if i not in goes or (i.dataset, i.model) in largest]
        named = ", ".join(f"`{k}: {v}`" for k, v in changes.items()).replace("'", "")
        cells = [
            f"{gigabytes(sum(i.n_bytes for i in some))} ({gigabytes(compressed(changed, some))})"
            for some in (items, in_turn, stays)
        ]
        rows.append([named or "as it is", *cells])
    heads = ["`extraction`", "all stores at once", "one store at a time", "at the end"]
    return markdown(heads, rows)


def passes(config: Config, dataset: str, entry: ModelEntry) -> float:
    """Return the operations of one image."""
    shape, (rows, columns) = guess_shape(entry), grid(config, dataset, entry, SIZES[dataset].aspect)
    view = config.view(dataset)
    whole = view.kind == "dense" and (view.passes == "one" or entry.family == ANY_SIZE)
    if whole:
        return operations(shape, rows * columns + 1)
    side = shape.image_size // shape.patch
    return math.ceil(rows / side) * math.ceil(columns / side) * shape.flops_per_image


def operations(shape: Shape, tokens: int) -> float:
    """Return the operations of a pass with so many tokens, two a multiply-add."""
    return 2 * shape.parameters * tokens + 4 * shape.depth * tokens**2 * shape.width


def gpu_hours(config: Config, dataset: str, models: Iterable[ModelEntry], rate: float) -> float:
    """Return hours, by whichever takes longest: the GPU, the cores that decode, or writing."""
    n = SIZES[dataset].images
    seconds = (
        max(
            n * passes(config, dataset, m) / rate,
            n * DECODE_SECONDS / CORES,
            store_bytes(config, dataset, m) / WRITE,
        )
        for m in models
    )
    return sum(seconds) / 3600


def gpu_table(config: Config) -> str:
    """Tabulate hours of the passes."""
    columns = [
        ("B/16", [config.model("supervised-b16")], GPU_FP32),
        ("H/14", [config.model("mae-h14")], GPU_FP32),
        (f"all {len(config.models)}", config.models, GPU_FP32),
        ("all, bf16", config.models, GPU_BF16),
        ("all, A100", config.models, OLDER_FP32),
    ]
    rows = [
        [f"`{name}`", *(hours(gpu_hours(config, name, ms, rate)) for _, ms, rate in columns)]
        for name in config.datasets
    ]
    sums = (
        hours(sum(gpu_hours(config, name, ms, rate) for name in config.datasets))
        for _, ms, rate in columns
    )
    return markdown(["dataset", *(c[0] for c in columns)], [*rows, ["**all**", *sums]])


def core_seconds(config: Config) -> list[tuple[str, str, dict[str, float]]]:
    """Return what is computed from stores and files: its name, how, and core seconds by model."""
    n = SIZES["imagenet-50"].images
    rows = []

    def add(what: str, how: str, seconds: Callable[[ModelEntry], float]) -> None:
        rows.append((what, how, {model.id: seconds(model) for model in config.models}))

    def shape(of: Callable[[Shape], float]) -> Callable[[ModelEntry], float]:
        return lambda model: of(guess_shape(model))

    decoded = sum(SIZES[name].images for name in config.datasets)
    add("decoding", f"{decoded:,} images", shape(lambda s: decoded * DECODE_SECONDS))
    add(
        "`cka`: Gram matrices",
        "2 n² d of a layer, d of CLS and of all spatial tokens",
        shape(lambda s: s.depth * 2 * n**2 * s.tokens * s.width / CORE),
    )
    pairs = 3 * (len(config.models) + 1) / 2
    add("`cka`: pairs", "4 s to read two files", shape(lambda s: pairs * 4 * s.depth / 12))
    add("`similarity`: pairs", "15 s each, of 1,000 images", shape(lambda s: pairs * 15))
    add(
        "`attention`",
        "reading",
        shape(lambda s: n * s.depth * s.tokens * (s.width + 8 * s.heads) / READ),
    )
    add("`clustering`", "3 seeds, CLS and means", shape(lambda s: kmeans(s, n, 50, 3 * 2)))
    add("`regions`", "3 seeds", shape(lambda s: sum(kmeans(s, *r, 3) for r in regions(config))))
    add("`saliency`", "reading, 5 ms a mask", shape(lambda s: saliency(config, s)))
    votes = 2 * SIZES["imagenet-val"].images * SIZES["imagenet-train"].images
    add(
        "`knn`",
        "1.5 times the product of 50,000 x 1.28 million cosines",
        shape(lambda s: 1.5 * s.depth * votes * s.width / CORE),
    )
    add("`retrieval`", "minutes", shape(lambda s: 2 * s.depth * 5))
    add("`video`", "0.25 s at 28 x 49 x 768; 0.5 s for masks", lambda m: video(config, m))
    add("`keypoints`", "1 ms a point and layer", shape(keypoints))
    return rows


def cpu_table(config: Config) -> str:
    """Tabulate core hours of what is computed from stores."""
    rows = [
        [
            what,
            how,
            *(hours(s / 3600) for s in (by["supervised-b16"], by["mae-h14"], sum(by.values()))),
        ]
        for what, how, by in core_seconds(config)
    ]
    return markdown(["what", "from", "B/16", "H/14", f"all {len(config.models)}"], rows)


def gpus_table(config: Config) -> str:
    """Tabulate the hours that it all takes on so many GPUs, and the disk that these need."""
    counts, rows = (1, 8, 64), []
    walls: dict[str, list[float]] = {}

    def add(what: str, how: str, cells: Iterable[str]) -> None:
        rows.append([what, how, *cells])

    cores = {what: by for what, _, by in core_seconds(config)}
    # Decoding goes on beside the passes; votes are the same products on a GPU.
    del cores["decoding"]
    votes = cores.pop("`knn`")
    for card, rate in RATES.items():
        jobs = {
            f"`{name}` of `{model.id}`": START / 3600 + gpu_hours(config, name, [model], rate)
            for name in config.datasets
            for model in config.models
        }
        # They stay in float32.
        faster = min(rate, GPU_FP32) / CORE
        jobs |= {f"`knn` of `{m}`": (START + s / faster) / 3600 for m, s in votes.items()}
        total, longest = sum(jobs.values()), max(jobs, key=jobs.__getitem__)
        walls[card] = [makespan(jobs.values(), n) for n in counts]
        add(
            f"{card}: a job a store",
            f"{len(jobs)} jobs, the longest ({longest}) {hours(jobs[longest])}",
            map(hours, walls[card]),
        )
        even = (hours(total / n) for n in counts)
        add(f"{card}: stores cut into equal jobs", f"{hours(total)} / GPUs", even)
    first, passing = next(iter(walls.items()))
    n_bytes = sum(store_bytes(config, d, m) for d in config.datasets for m in config.models)
    add(
        f"{first}: bytes written a second",
        f"{gigabytes(n_bytes)} / its hours",
        (f"{digits(n_bytes / wall / 3.6e12)} GB/s" for wall in passing),
    )
    left = [seconds / 3600 for by in cores.values() for seconds in by.values()]
    after = [max(sum(left) / (CORES * n), max(left) / THREADS) for n in counts]
    add(
        f"tables from stores, {CORES} cores a GPU",
        f"{hours(sum(left))} core hours; the longest job {hours(max(left))} on {THREADS} cores",
        map(hours, after),
    )
    both = (f"**{hours(a + b)}**" for a, b in zip(passing, after, strict=True))
    add(f"**all, {first}**", "a job a store, then the tables", both)
    heads = ["hours", "from", *(f"{n} GPU{'s' * (n > 1)}" for n in counts)]
    return markdown(heads, rows)


def makespan(jobs: Iterable[float], machines: int) -> float:
    """Return when the last job ends, if each machine takes the longest that is left."""
    ends = [0.0] * machines
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(ends, ends[0] + job)
    return max(ends)


def kmeans(shape: Shape, rows: int, clusters: int, seeds: int) -> float:
    """Return core seconds for all layers, ten initialisations a seed."""
    return KMEANS * shape.depth * shape.width * rows * clusters * 10 * seeds


def regions(config: Config) -> list[tuple[int, int]]:
    """Return number of regions and clusters of each k-means: COCO's objects, parts and objects."""
    settings = config.settings(RegionSettings)
    assert settings is not None
    found = []
    for name in settings.datasets:
        n = SIZES[name].images
        if name.startswith("coco"):
            found.append((int(n * SIZES[name].regions), 80))
        else:
            found += [(int(n * (SIZES[name].regions - 1)), 40), (n, 11)]
    return found


def saliency(config: Config, shape: Shape) -> float:
    """Return core seconds for all layers and queries."""
    settings = config.settings(SaliencySettings)
    assert settings is not None
    numbers = shape.depth * shape.heads * shape.tokens * len(settings.queries) / READ
    sizes = [SIZES[name] for name in settings.datasets]
    return sum(size.images * (numbers + 0.005 * size.regions) for size in sizes)


def video(config: Config, entry: ModelEntry) -> float:
    """Return core seconds to follow the objects of all videos with all layers."""
    shape, tokens = (
        guess_shape(entry),
        math.prod(grid(config, "davis", entry, SIZES["davis"].aspect)),
    )
    frame = PROPAGATION * tokens * shape.width + SCORING
    return SIZES["davis"].images * shape.depth * frame


def keypoints(shape: Shape) -> float:
    """Return core seconds for all layers, as the workflow asks a scheduler for them."""
    return POINTS * shape.depth * (1e-3 + 1e-9 * shape.tokens * shape.width)


def gigabytes(n_bytes: float) -> str:
    """Write bytes to two digits, in GB or TB."""
    if n_bytes >= 1e12:
        return f"{n_bytes / 1e12:.1f} TB"
    return f"{digits(n_bytes / 1e9)} GB"


def hours(value: float) -> str:
    """Write hours to two digits; below a hundredth as such."""
    return "< 0.01" if value < 0.01 else digits(value)


def digits(value: float) -> str:
    """Write a number to two digits, or all before the point."""
    places = max(0, 1 - math.floor(math.log10(value))) if value else 0
    return f"{value:,.{min(places, 2)}f}"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    lines = [f"| {' | '.join(line)} |\n" for line in (heads, *rows)]
    return "".join([lines[0], f"|{'---|' * len(heads)}\n", *lines[1:]])


if __name__ == "__main__":
    main()
