"""What will stop jobs, as far as it shows while they are planned: folders, images, layers, devices.

What may still come right is a line and no error: data that is not there yet, a device of another
machine that runs the jobs. What cannot is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.registry import analyses
from vitfeat.config.config import Config
from vitfeat.data.containers import containers_of
from vitfeat.data.folders import Tally
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.layouts import find
from vitfeat.data.listing import Listing
from vitfeat.data.spec import LAYOUTS, DatasetSpec
from vitfeat.demo.datasets import embedded_root
from vitfeat.errors import ConfigError, DataError
from vitfeat.files import existing
from vitfeat.gpus import visible_gpus
from vitfeat.models.layers import select_layers
from vitfeat.models.shapes import Shape, guess_shape
from vitfeat.text import nearest, plural

#: Where the official layouts are drawn.
LAYOUT_PAGES = {
    "imagenet": "docs/paper.md",
    "imagenet50": "docs/paper.md",
    "coco": "docs/analyses/regions.md",
    "partimagenet": "docs/analyses/regions.md",
    "revisited": "docs/analyses/retrieval.md",
    "davis": "docs/analyses/video.md",
    "spair": "docs/analyses/keypoints.md",
}

_DRIVER = Path("/proc/driver/nvidia/version")

# To find their images means to read annotations of hundreds of megabytes.
_LARGE = ("coco", "partimagenet")


def foresee(config: Config) -> list[str]:
    """Return a line for people about each thing that will stop jobs if it stays as it is."""
    lines: list[str] = []
    for name, spec in config.datasets.items():
        if config.reads(name):
            lines += _of_dataset(config, spec)
    lines += _of_images(config)
    lines += _of_layers(config)
    device = config.extraction.device
    if _lacks(device):
        lines.append(f"{_without(device)}: jobs that use it stop where they run on this machine")
    return lines


def check_start(config: Config, *, fetches: bool, on_device: bool) -> None:
    """Refuse to start jobs on this machine that are known to fail.

    They are those that fetch weights, and those that use ``extraction.device``.
    """
    for key, folder in (("results", config.results), ("weights", config.weights)):
        if key == "results" or fetches:
            _check_writable(key, folder)
    device = config.extraction.device
    if on_device and _lacks(device):
        raise ConfigError(f"{_without(device)}; use auto or cpu")


def _check_writable(key: str, folder: Path) -> None:
    there = existing(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{key}: nothing may be written in {printable(str(there))}; choose another folder"
        )


def _lacks(device: str) -> bool:
    """Whether this machine surely has no such device."""
    if not device.startswith("cuda"):
        return False
    gpus = visible_gpus()
    if not gpus and _DRIVER.exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        # Whoever installed the driver left out the tool that lists its GPUs.
        return False
    return int(device.partition(":")[2] or 0) >= len(gpus)


def _without(device: str) -> str:
    has = plural(len(visible_gpus()), "usable GPU")
    return f"extraction.device: found {device!r}, and this machine has {has}"


def _of_dataset(config: Config, spec: DatasetSpec) -> Iterator[str]:
    """Yield what is missing of a dataset."""
    if spec.root == embedded_root(config.results, spec.layout):
        return
    root, where = spec.root, f"dataset {spec.name}: {printable(spec.root.as_posix())}"
    if not root.is_dir() and not (spec.containers and root.is_file()):
        page = LAYOUT_PAGES.get(spec.layout)
        shown = f"; {page} shows what belongs there" if page else ""
        if os.name == "posix" and re.search(r"\\|^[A-Za-z]:", str(root)):
            shown = "; that is a path of Windows, and on this machine folders are parted by /"
        state = "is no folder" if root.exists() else "does not exist yet"
        yield f"{where} {state}{shown}"
        return
    if _index(config, spec.name).exists():
        # It was found once; what changed since, the index is held to.
        return
    if spec.layout in _LARGE and spec.annotations is not None:
        if not spec.annotation_files():
            files = " or ".join(LAYOUTS[spec.layout].files)
            expected = files.replace("{split}", spec.split or "")
            yield f"{where} has no {expected}; {LAYOUT_PAGES[spec.layout]} shows what belongs there"
        return
    try:
        if spec.containers:
            # What they hold is read by the job of the index: it may take long.
            containers_of(spec)
            return
        listing = find(spec, Tally())
        next(iter(listing.candidates), None)
    except DataError as error:
        yield str(error)
        return
    _check_labels(config, spec, listing)


def _check_labels(config: Config, spec: DatasetSpec, listing: Listing) -> None:
    if listing.has_labels:
        return
    for name, analysis in config.analyses.items():
        if analyses()[name].labels and spec.name in analysis.sources:
            raise ConfigError(
                f"analyses.{name}: needs a label for every image, and dataset {spec.name!r} has "
                f"none: {printable(str(spec.list or spec.root))} gives no labels"
            )
    if spec.per_class is not None:
        raise ConfigError(f"datasets.{spec.name}.per_class: the images have no labels; use limit")


def _index(config: Config, dataset: str) -> Path:
    return config.results / "datasets" / f"{dataset}.csv"


def _of_images(config: Config) -> Iterator[str]:
    """Yield which of the images that are to be shown an index does not have."""
    for name, analysis in config.analyses.items():
        images = getattr(analysis, "images", None)
        if not isinstance(images, tuple):
            continue
        for dataset in analysis.datasets:
            spec, path = config.datasets[dataset], _index(config, dataset)
            known = Index.read(path).image_id if path.exists() else None
            if not (known if spec.containers else spec.root.is_dir()):
                continue
            where = f"analyses.{name}.images: the dataset {dataset!r}"
            for image in images:
                there = image in (known or ()) if spec.containers else (spec.root / image).is_file()
                if not there:
                    near = nearest(image, known if known is not None else _beside(spec, image))
                    raise ConfigError(
                        f"{where} has no image {image!r}{near}; ids are paths below "
                        f"{printable(spec.root.as_posix())}"
                    )
                if known is not None and image not in known:
                    yield f"{where} leaves {image!r} out: it is not in {printable(str(path))}"


def _beside(spec: DatasetSpec, image: str) -> list[str]:
    """Return the files near where an image should be."""
    folder = (spec.root / image).parent
    while not folder.is_dir() and folder != spec.root:
        folder = folder.parent
    found = sorted(path for path in folder.glob("*") if folder.is_relative_to(spec.root))
    return [path.relative_to(spec.root).as_posix() for path in found]


def _of_layers(config: Config) -> Iterator[str]:
    """Yield which layers and heads are not there, of models whose sizes their entries tell."""
    maps = config.settings(AttentionMapSettings)
    clustering = config.settings(ClusteringSettings)
    for model in (m for m in config.models if not m.is_imported):
        shape = guess_shape(model)
        asked = {"extraction.layers": config.extraction.layers}
        if maps is not None:
            asked["analyses.attention_maps.layer"] = maps.layer
            asked["analyses.attention_maps.layers"] = maps.layers
        if clustering is not None and "attention_mean" in clustering.features:
            asked["analyses.clustering.pattern_layers"] = clustering.pattern_layers
        for key, layers in asked.items():
            try:
                select_layers(shape.depth, layers)
            except ConfigError as error:
                yield f"{key}: model {model.id}: {str(error).removeprefix('layers: ')}"
        if maps is not None:
            yield from _of_tokens(model.id, shape, maps.head, maps.positions)


def _of_tokens(
    model: str, shape: Shape, head: str | int, positions: Iterable[str]
) -> Iterator[str]:
    if isinstance(head, int) and head >= shape.heads:
        yield (
            f"analyses.attention_maps.head: model {model}: found {head}; a model of {shape.heads} "
            f"heads has 0 to {shape.heads - 1}"
        )
    side = shape.image_size // shape.patch
    for position in positions:
        if "," in position and max(map(int, position.split(","))) >= side:
            yield (
                f"analyses.attention_maps.positions: model {model}: found {position}; its grid is "
                f"about {side} x {side}, from 0,0"
            )
