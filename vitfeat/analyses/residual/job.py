"""What skip connections carry beside branches, from a store's taps inside its blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vitfeat.analyses.cka.compute import MIN_IMAGES, cka
from vitfeat.analyses.residual.compute import BRANCHES, cka_rows, norm_ratios, norm_rows, summed
from vitfeat.analyses.residual.settings import ResidualSettings
from vitfeat.analyses.rows import ResidualCkaRow, ResidualNormRow
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import reader, shared_entries, slices, whole_chunks
from vitfeat.numerics.accumulate import StreamingMoments
from vitfeat.numerics.gram import Gram, gram
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_gram_file
from vitfeat.numerics.grams import GramSum
from vitfeat.store.layout import TOKEN_ARRAYS
from vitfeat.store.opening import open_store
from vitfeat.store.reader import Entries, FeatureStore, read_rows
from vitfeat.store.stored_array import StoredArray
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)


SIDES = ("skip", "branch")

SUMS = {
    ("attn", "skip"): ("block_input",),
    ("attn", "branch"): ("attn_branch",),
    ("mlp", "skip"): ("block_input", "attn_branch"),
    ("mlp", "branch"): ("mlp_branch",),
}
"""The taps that add up to the skip input of a branch, and to its output."""

TAPS = ("block_input", "attn_branch", "mlp_branch")

# A token of a layer while ratios are made: two norms as stored and in float64, ratios, masks.
_NORM_BYTES = 2 * 4 + 2 * 8 + 3 * 8


# Images that tell how large branches are.
_SAMPLE = 64


def write_residual(
    store_path: Path,
    norms_out: Path,
    cka_out: Path | None,
    settings: ResidualSettings,
    *,
    max_bytes: int = 2 * 2**30,
    device: str = "auto",
) -> None:
    """Compare the skip inputs of a store's blocks with their branch outputs; write the tables.

    Of a model whose blocks have no branches with skips of their own the tables have no rows.

    Parameters
    ----------
    norms_out
        The table of ResidualNormRow to write: ratios of norms, over all images that have them.
    cka_out
        The table of ResidualCkaRow to write, if any: debiased CKA over all images that the branches
        and the block inputs are stored for.
    max_bytes
        Bound on the features in memory. Gram matrices stand in a scratch folder beside the table,
        and go again.
    """
    tokens = () if cka_out is None else settings.tokens
    if cka_out is not None and not tokens:
        raise AnalysisError(
            f"{cka_out}: the CKA of skips with branches needs token kinds "
            "(analyses.residual.tokens)"
        )
    store = open_store(store_path)
    if not store.has_branches:
        logger.warning(f"{store.model} has no branches with skips of their own: left out")
        write_table(norms_out, ResidualNormRow, ())
        if cka_out is not None:
            write_table(cka_out, ResidualCkaRow, ())
        return
    kinds = _kinds(store, tokens)
    arrays = list(dict.fromkeys(a for made_of in kinds.values() for a in made_of))
    _check_taps(store, arrays)
    write_table(norms_out, ResidualNormRow, _norm_rows(store, max_bytes))
    if cka_out is not None:
        _note_rounding(store, arrays, max_bytes)
        rows = _cka_rows(store, kinds, arrays, cka_out.parent, max_bytes, device)
        write_table(cka_out, ResidualCkaRow, rows)


def _kinds(store: FeatureStore, tokens: Sequence[str]) -> dict[str, list[str]]:
    """Return by token kind that the model has the arrays that it is made of."""
    kinds = {k: [a for a in TOKEN_ARRAYS[k] if store.model_has(a)] for k in tokens}
    for kind in [k for k, made_of in kinds.items() if not made_of]:
        logger.warning(
            f"{store.model} has no CLS token: no CKA of skips with branches for {kind!r}"
        )
        del kinds[kind]
    return kinds


def _norm_names(branch: str) -> list[str]:
    return [f"residual_norms/{branch}_{side}" for side in SIDES]


def _check_taps(store: FeatureStore, arrays: Sequence[str]) -> None:
    norms = [name for branch in BRANCHES for name in _norm_names(branch)]
    features = [f"{tap}/{array}" for tap in TAPS for array in arrays]
    for names, made, how in (
        (norms, "the ratios of norms are", "name its dataset in analyses.residual.datasets"),
        (features, "the CKA of skips with branches is", "give analyses.residual.tokens"),
    ):
        if absent := _taps(name for name in names if name not in store):
            raise AnalysisError(
                f"{store.path}: no {' and no '.join(absent)} in this store (it holds "
                f"{', '.join(_taps(store.array_names))}), which {made} made of: {how}, or add "
                f"{', '.join(absent)} to extraction.taps, and extract it again"
            )


def _taps(arrays: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in arrays))


def _rows_of_norms(array: StoredArray, max_bytes: int) -> int:
    return whole_chunks(array, max(1, max_bytes // (_NORM_BYTES * prod(array.shape[1:]))))


def _norm_rows(store: FeatureStore, max_bytes: int) -> Iterator[ResidualNormRow]:
    moments = {branch: StreamingMoments() for branch in BRANCHES}
    for branch, over_images in moments.items():
        names = _norm_names(branch)
        array = store[names[0]]
        for start, stop in slices(array.shape[0], _rows_of_norms(array, max_bytes)):
            skip, added = (read_rows(store, name, start, stop) for name in names)
            ratios = norm_ratios(
                skip,
                added,
                has_cls=store.model_has("cls"),
                n_registers=int(store.attributes["n_registers"]),
            )
            over_images.update(ratios)
    return norm_rows(
        moments, model=store.model, dataset=store.path.parent.name, layers=store.layers
    )


def _note_rounding(store: FeatureStore, arrays: Sequence[str], max_bytes: int) -> None:
    """Say which branches are too small for float16, by the norms of tokens before rounding."""
    first = int(store.model_has("cls"))
    prefix = first + int(store.attributes["n_registers"])
    tokens = {
        "cls": slice(first),
        "registers": slice(first, prefix),
        "spatial": slice(prefix, None),
    }
    for branch in BRANCHES:
        name = _norm_names(branch)[1]
        norms = read_rows(store, name, 0, min(_SAMPLE, _rows_of_norms(store[name], max_bytes)))
        for array in arrays:
            stored = store[f"{branch}_branch/{array}"]
            if stored.dtype != np.float16:
                continue
            size = norms[..., tokens[array]].mean(axis=(0, 2)) / stored.shape[-1] ** 0.5
            small = (size > 0) & (size < np.finfo(np.float16).smallest_normal)
            if small.any():
                logger.warning(
                    f"{store.model}: {branch} branches of {array} are about {size[small].min():.0e}"
                    f" in {plural(int(small.sum()), 'layer')}, where float16 has few digits or "
                    "none: do not trust their CKA; set extraction.dtype to float32"
                )


def _cka_rows(
    store: FeatureStore,
    kinds: dict[str, list[str]],
    arrays: Sequence[str],
    folder: Path,
    max_bytes: int,
    device: str,
) -> list[ResidualCkaRow]:
    if not kinds:
        return []
    images, entries = shared_entries(store, [f"{tap}/{a}" for tap in TAPS for a in arrays])
    if len(images) < MIN_IMAGES:
        raise AnalysisError(
            f"{store.path}: {plural(len(images), 'image')} with {', '.join(TAPS)}; CKA needs at "
            f"least {MIN_IMAGES}: raise analyses.residual.images (or the dataset's limit) and "
            "extract it again"
        )
    dataset = store.path.parent.name
    sources = _Sources(store, entries, len(images), max_bytes, torch_device_name(device))

    def rows(branch: str, scratch: Path) -> Iterator[ResidualCkaRow]:
        files = {
            (side, array): sources.gram_file(branch, side, array, scratch)
            for side in SIDES
            for array in arrays
        }
        for kind, made_of in kinds.items():
            skip, added = (GramSum([files[side, a] for a in made_of], kind) for side in SIDES)
            yield from cka_rows(
                cka(skip, added),
                model=store.model,
                dataset=dataset,
                branch=branch,
                tokens=kind,
                layers=store.layers,
                n_images=len(images),
            )

    found: list[ResidualCkaRow] = []
    folder.mkdir(parents=True, exist_ok=True)
    for branch in BRANCHES:
        # As files, since Gram matrices of thousands of images are larger than the memory.
        with TemporaryDirectory(prefix=f".{store.model}.", dir=folder) as scratch:
            found += rows(branch, Path(scratch))
    return found


@dataclass(frozen=True)
class _Sources:
    """Where Gram matrices come from: the taps of some images of a store."""

    store: FeatureStore
    entries: dict[str, Entries]
    n_images: int
    max_bytes: int
    device: str

    def gram_file(self, branch: str, side: str, array: str, folder: Path) -> GramFile:
        """Write the Gram matrices of one kind of tokens to a file in a folder, and open it."""
        meta = GramMeta(
            model=f"{self.store.model}, {branch} {side}",
            dataset=self.store.path.parent.name,
            tokens=array,
            image_fingerprint=self.store.image_fingerprint,
            features_fingerprint=self.store.fingerprint,
        )
        path = folder / f"{side}.{array}.safetensors"
        names = [f"{tap}/{array}" for tap in SUMS[branch, side]]
        write_gram_file(path, self.store.layers, self._grams(names), meta)
        return GramFile(path)

    def _grams(self, names: Sequence[str]) -> Iterator[Gram]:
        # Beside a sum stands one of its parts, no larger than it.
        share = self.max_bytes if len(names) == 1 else self.max_bytes // 2
        for position in range(len(self.store.layers)):
            parts = [reader(self.store, name, position, self.entries[name]) for name in names]
            read = parts[0] if len(parts) == 1 else summed(parts)
            yield gram(read, self.n_images, max_bytes=share, device=self.device)
