"""Linear classifiers of a store's features, tried on those of another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.linear_probe.compute import Probe, probe
from vitfeat.analyses.linear_probe.logistic import MAX_ITERATIONS, TOLERANCE
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.rows import ScoreRow
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError
from vitfeat.jobs.classes import Pair, named, open_pair
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)


def write_linear_probe(
    test_path: Path,
    train_path: Path,
    out: Path,
    settings: LinearProbeSettings,
    *,
    max_iterations: int = MAX_ITERATIONS,
    layers: Sequence[str | int] = ("all",),
    threads: int = 1,
    device: str = "auto",
) -> None:
    """Fit a linear classifier to each layer of a store, try it on another, write a table.

    Rows are of the type ScoreRow: ``top1``, ``top5`` where there are more than five classes, and
    ``validation_top1``, the accuracy that chose the penalty, where there was a choice. The variant
    is ``penalty={the chosen one}``.

    Parameters
    ----------
    test_path, train_path
        The stores.
    out
        The table to write. It has no rows where a model lacks the features.
    settings
        The features, the penalties, and on what one of them is chosen.
    max_iterations, threads
        See :func:`vitfeat.analyses.linear_probe.compute.probe`.
    layers
        Layers by name or number; numbers of layers that are not stored are passed over.
    device
        Where the classifiers are fitted; ``auto`` takes a GPU where there is one.

    Raises
    ------
    AnalysisError, StoreError
        The stores do not go together, lack what is asked for, or hold what is not finite; the
        training images are of one class.
    """
    pair = open_pair(test_path, train_path)
    tops = (1, 5) if len(pair.names) > 5 else (1,)
    chosen = pair.layers(layers)
    smallest, largest = min(settings.regularisation), max(settings.regularisation)
    rows: list[ScoreRow] = []
    for kind in pair.kinds(settings.features, "linear_probe"):
        ends: dict[float, list[int]] = {}
        for layer in chosen:
            x, test = (
                part.features(kind, layer, 0, len(part), final_norm=settings.final_norm)
                for part in (pair.train, pair.test)
            )
            try:
                found = probe(
                    x,
                    pair.train.classes,
                    len(pair.names),
                    settings.regularisation,
                    validation=settings.validation,
                    seed=settings.seed,
                    max_iterations=max_iterations,
                    threads=threads,
                    device=torch_device_name(device),
                )
                ranks = found.ranks(test, pair.test.classes)
            except AnalysisError as error:
                raise AnalysisError(f"{pair.where(kind, layer)}: {error}") from error
            _note_unconverged(pair.where(kind, layer), found)
            name, variant = named(kind, settings.final_norm), f"penalty={found.penalty:g}"
            rows += pair.top_rows("linear_probe", layer, name, variant, ranks, tops)
            if found.validation:
                value, n = found.validation[found.penalty], found.n_validation
                score = "validation_top1"
                rows.append(pair.row("linear_probe", layer, name, variant, score, n, value))
                others = [v for p, v in found.validation.items() if p != found.penalty]
                at_end = found.penalty in (smallest, largest)
                if at_end and value > max(others):
                    ends.setdefault(found.penalty, []).append(layer)
        _note_ends(pair, kind, settings.regularisation, ends)
    write_table(out, ScoreRow, rows)


def _note_unconverged(where: str, found: Probe) -> None:
    for penalty, fit in found.unconverged.items():
        which = "the classifier" if penalty is None else f"the choice at penalty {penalty:g}"
        logger.warning(
            f"{where}: {which} had not converged after {plural(fit.iterations, 'iteration')} "
            f"(largest entry of the gradient {fit.gradient:.1e}, not {TOLERANCE:g})"
        )


def _note_ends(pair: Pair, kind: str, tried: Sequence[float], ends: dict[float, list[int]]) -> None:
    for penalty, layers in sorted(ends.items()):
        which = "smallest" if penalty == min(tried) else "largest"
        logger.warning(
            f"{pair.test.store.model}, {pair.test.dataset}, {kind}: the {which} penalty that was "
            f"tried, {penalty:g}, was the best in layer {', '.join(map(str, layers))}; a "
            f"{which[:-2]}r one may be better"
        )
