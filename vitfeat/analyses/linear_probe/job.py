"""Linear classifiers of a store's features, tried on those of another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.linear_probe.compute import Probe, probe
from vitfeat.analyses.linear_probe.logistic import MAX_ITERATIONS, TOLERANCE
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError
from vitfeat.jobs.classes import Pair, open_pair, top_rows
from vitfeat.jobs.features import named
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
    is ``penalty={the chosen one}``. The log says which fits did not converge, and where the best
    penalty is the smallest or largest that was tried.
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
                fitted = probe(
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
                ranks = fitted.ranks(test, pair.test.classes)
            except AnalysisError as error:
                raise AnalysisError(f"{pair.where(kind, layer)}: {error}") from error
            _note_unconverged(pair.where(kind, layer), fitted)
            row = score_rows(
                "linear_probe",
                pair.test.store,
                layer=layer,
                features=named(kind, settings.final_norm),
                variant=f"penalty={fitted.penalty:g}",
            )
            rows += top_rows(row, ranks, tops)
            if fitted.validation:
                value = fitted.validation[fitted.penalty]
                rows.append(row(score="validation_top1", n=fitted.n_validation, value=value))
                others = [v for p, v in fitted.validation.items() if p != fitted.penalty]
                at_end = fitted.penalty in (smallest, largest)
                if at_end and value > max(others):
                    ends.setdefault(fitted.penalty, []).append(layer)
        _note_ends(pair, kind, settings.regularisation, ends)
    write_table(out, ScoreRow, rows)


def _note_unconverged(where: str, fitted: Probe) -> None:
    for penalty, fit in fitted.unconverged.items():
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
