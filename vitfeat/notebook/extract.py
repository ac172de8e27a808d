"""An extraction from a notebook: a model, images, and where the store goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitfeat.config.model import ConfigModel
from vitfeat.errors import ConfigError, DataError
from vitfeat.extraction.settings import Settings

if TYPE_CHECKING:
    from vitfeat.data.index import Index
    from vitfeat.data.listing import Candidate
    from vitfeat.data.spec import DatasetSpec
    from vitfeat.models.entry import ModelEntry
    from vitfeat.store.reader import FeatureStore

_USUAL = Settings()

File = str | os.PathLike[str]


def extract(
    model: str | Mapping[str, Mapping[str, Any]],
    images: File | Sequence[File] | Mapping[str, Any],
    out: File,
    *,
    taps: str | Sequence[str] = _USUAL.taps,
    limits: Mapping[str, int | Sequence[str]] | None = None,
    layers: str | int | Sequence[str | int] = _USUAL.layers,
    view: Mapping[str, Any] | None = None,
    dtype: str = _USUAL.dtype,
    keep_bits: int | None = _USUAL.keep_bits,
    precision: str = _USUAL.precision,
    batch_size: int = _USUAL.batch_size,
    device: str = _USUAL.device,
    workers: str | int = _USUAL.workers,
    weights: File = ConfigModel.model_fields["weights"].default,
    replace: bool = False,
    progress: bool = True,
) -> FeatureStore:
    """Push images through a model once, and open the store of what it computes.

    An extraction that was interrupted is resumed by the same call, and one that is finished is
    opened. In a script, call it under ``if __name__ == "__main__":`` or with ``workers=0``: images
    of a large dataset are decoded by processes of their own, which import the script.

    Parameters
    ----------
    model
        A model's id in the catalogue (``vitfeat models`` lists them), or a model of your own as
        ``catalog:`` of a config has it: ``{id: {"source": ..., "name": ...}}``. Published weights
        that are not on this machine are fetched.
    images
        A folder: its subfolders are the classes, unless images stand in the folder itself, which
        then all have no label. Or a container of images: a tar or zip, a Parquet or HDF5 file, a
        video (docs/data.md). Or a list of files, without labels, in the order of the store. Or a
        dataset as ``datasets:`` of a config has it, such as
        ``{"layout": "flat", "root": "photos/", "on_error": "skip"}``.
    out
        The store to write, ``NAME.zarr``; its manifest ``NAME.json`` goes beside it.
    taps
        What is stored, out of :data:`vitfeat.store.layout.TAPS`.
    limits
        Taps that are kept for some images only: how many, or their ids.
    layers
        Layers by name (all, first, q1, middle, q3, last) or number.
    view
        How images become inputs, such as ``{"kind": "dense", "short_side": 448}``; the layout's
        usual view if not given.
    dtype
        Element type of stored features: float16 or float32.
    keep_bits
        Bits of mantissa that stored features are rounded to; all if not given.
    precision
        Arithmetic of the forward pass: fp32, tf32, bf16 or fp16.
    batch_size
        Images that go through the model together, on a GPU.
    device
        auto, cpu, cuda or cuda:N.
    workers
        Processes that read and decode images; ``auto`` fits them to the work.
    weights
        Folder with the records of fetched weights.
    replace
        Whether a store from other settings under this path is replaced.
    progress
        Whether a progress bar is shown. What else there is to say goes to Python's ``logging``:
        what changes numbers or leaves something out as a warning, the rest at the level INFO.

    Returns
    -------
    FeatureStore
        Lazy; see docs/store.md.

    Raises
    ------
    VitfeatError
        The model, the images or the settings do not give what is asked, or another store stands
        there; one line says what to do.

    Examples
    --------
    A folder of six images of two classes, ``photos/cat`` and ``photos/dog``:

    >>> import vitfeat
    >>> store = vitfeat.extract("demo-dino", "photos/", "photos.zarr", progress=False)
    >>> store["cls"]
    <StoredArray cls: float16 (image 6, layer 6, channel 64) of photos.zarr>
    >>> store.classes
    {0: 'cat', 1: 'dog'}
    """
    from vitfeat.extraction.from_entry import extract_from_entry
    from vitfeat.store.opening import open_store
    from vitfeat.store.paths import place_of

    entry = _entry(model)
    given: dict[str, Any] = {
        "taps": [taps] if isinstance(taps, str) else list(taps),
        "layers": layers if isinstance(layers, str | int) else list(layers),
        "dtype": dtype,
        "keep_bits": keep_bits,
        "precision": precision,
        "batch_size": batch_size,
        "device": device,
        "workers": workers,
        "limits": limits or {},
        **({} if view is None else {"view": view}),
    }
    settings = Settings.checked("extract: ", given, replace=replace)
    processes = max(1, settings.workers) if isinstance(settings.workers, int) else 1
    spec, index = _indexed(images, processes)
    if view is None:
        settings = settings.but(view=spec.usual_view)
    place = place_of(out)
    extract_from_entry(
        entry,
        index,
        spec.root,
        place,
        settings,
        weights_folder=Path(weights),
        progress=_bar if progress else _nothing_shown,
    )
    return open_store(place)


def import_features(
    features: File | Mapping[str, Any],
    images: File | Sequence[File] | Mapping[str, Any],
    out: File,
    *,
    model: str,
    ids: Sequence[str] | None = None,
    replace: bool = False,
) -> FeatureStore:
    """Make a store of features from elsewhere, and open it.

    They are compared with those of models by every function and analysis that takes a vector an
    image; see docs/data.md.

    Parameters
    ----------
    features
        Arrays (image, channel) by the names of their layers; or a file or folder of them.
    images
        The images, as :func:`extract` takes them; or the table of a dataset that has an index,
        ``results/datasets/NAME.csv``.
    out
        The store to write, ``NAME.zarr``.
    model
        What the features are called.
    ids
        The image of each row of the arrays, which may be more than there are here; rows are in the
        order of the images if not given. A file has its own.
    replace
        Whether a store of other features under this path is replaced.

    Returns
    -------
    FeatureStore
        Its array ``spatial`` has the vectors: (image, layer, 1, 1, channel).

    Raises
    ------
    VitfeatError
        Features and images do not match, a number is not finite, or another store stands there.

    Examples
    --------
    >>> import numpy as np, vitfeat
    >>> recorded = {"V1": np.eye(6, 8), "IT": np.ones((6, 5))}
    >>> store = vitfeat.import_features(recorded, "photos/", "brain.zarr", model="brain")
    >>> store.sel(layer="IT")["spatial"].sizes
    Frozen({'image': 6, 'y': 1, 'x': 1, 'channel': 8})
    """
    import numpy as np

    from vitfeat.data.index import Index
    from vitfeat.data.vectors import Vectors, read_vectors
    from vitfeat.extraction.importing import import_vectors
    from vitfeat.store.opening import open_store
    from vitfeat.store.paths import place_of

    if isinstance(features, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in features.items()}
        vectors = Vectors.of("features", None if ids is None else [*map(str, ids)], arrays)
    elif ids is not None:
        raise ConfigError("import_features: ids: a file has its own; leave them out")
    else:
        vectors = read_vectors(_absolute(features))
    if isinstance(images, str | os.PathLike) and Path(images).suffix.lower() == ".csv":
        index = Index.read(_absolute(images))
    else:
        _, index = _indexed(images, 1)
    place = place_of(out)
    import_vectors(vectors, index, place, model, replace=replace)
    return open_store(place)


def _indexed(
    images: File | Sequence[File] | Mapping[str, Any], workers: int
) -> tuple[DatasetSpec, Index]:
    """Return the dataset of images, and its index."""
    from vitfeat.data.scan import build_index

    spec, files = _dataset(images)
    candidates = None if files is None else _candidates(files, spec.root)
    return spec, build_index(spec, workers=workers, candidates=candidates)


def _entry(model: str | Mapping[str, Mapping[str, Any]]) -> ModelEntry:
    from vitfeat.models.entry import find_entry, read_catalog

    if isinstance(model, str):
        return find_entry(model)
    fields = list(model.values()) if isinstance(model, Mapping) else []
    if len(fields) != 1 or not isinstance(fields[0], Mapping):
        raise ConfigError(
            f"extract: model: found {model!r}; allowed: an id of the catalogue, or a mapping of "
            'one model as in `catalog:`, {"my-model": {"source": "timm", "name": ...}}'
        )
    (entry,) = read_catalog(model).values()
    return entry


def _dataset(
    images: File | Sequence[File] | Mapping[str, Any],
) -> tuple[DatasetSpec, list[Path] | None]:
    """Return the dataset that images are of, and its files where these are named one by one."""
    from vitfeat.data.folders import Folder
    from vitfeat.data.images import printable
    from vitfeat.data.spec import LAYOUTS, DatasetSpec

    if isinstance(images, Mapping):
        texts = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in images.items()}
        return DatasetSpec.from_config("images", texts), None
    if isinstance(images, str | os.PathLike):
        path = _absolute(images)
        if not path.exists():
            raise DataError(
                f"extract: images: {printable(str(path))} does not exist; give a folder or files"
            )
        if path.is_dir():
            top = Folder.read(path)
            layout = "folder" if top.folders and not top.images else "flat"
            return DatasetSpec(name="images", layout=layout, root=path), None
        for layout, of in LAYOUTS.items():
            if path.suffix.lower() in of.containers:
                return DatasetSpec(name="images", layout=layout, root=path), None
        images = [path]
    files = [_absolute(file) for file in images]
    if not files:
        raise DataError("extract: images: found an empty list; give a folder, or one file or more")
    for file in files:
        if not file.is_file():
            raise DataError(f"extract: images: {printable(str(file))} is no file; give files alone")
    root = Path(os.path.commonpath([file.parent for file in files]))
    return DatasetSpec(name="images", layout="flat", root=root), files


def _absolute(file: File) -> Path:
    # Links stay: names are those that were given.
    return Path(os.path.abspath(Path(file).expanduser()))  # noqa: PTH100


def _candidates(files: Sequence[Path], root: Path) -> list[Candidate]:
    from vitfeat.data.images import printable
    from vitfeat.data.listing import Candidate

    twice = next((file for file, count in Counter(files).items() if count > 1), None)
    if twice is not None:
        raise DataError(
            f"extract: images: {printable(str(twice))} stands there twice; remove one of them"
        )
    return [Candidate(file.relative_to(root).as_posix(), -1, "") for file in files]


@contextmanager
def _bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=" images") as bar:

        def advance(n: int) -> None:
            bar.update(n)

        yield advance


@contextmanager
def _nothing_shown(total: int, what: str) -> Iterator[Callable[[int], None]]:
    yield lambda n: None
