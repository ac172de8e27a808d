"""Figures of single models' attention, from the tables and maps of all models of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.attention import head_figures, map_figures
from vitfeat.analyses.attention.across import CURVES
from vitfeat.analyses.attention.map_figures import OffsetRow, TokenRow, offset_rows, token_rows
from vitfeat.analyses.attention.map_file import (
    CLASS_DEVIATION,
    OFFSET_MAPS,
    TOKEN_MAPS,
    AttentionMaps,
    read_maps,
)
from vitfeat.analyses.rows import read_attention
from vitfeat.errors import AnalysisError
from vitfeat.figures.across import panels
from vitfeat.figures.curves import Panel
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers


def write_model_figures(
    table: Path, maps: Path, out: Path, classes: Path | None, *, models: Sequence[Model]
) -> None:
    """Write the figures of each model's attention: PNG, PDF, and a table of what each shows.

    In paths, ``{model}`` stands for the id of each. Models share scales.

    Parameters
    ----------
    table, maps
        What :func:`vitfeat.analyses.attention.job.write_attention` wrote; their folder has the
        dataset's name.
    out
        The figure ``by_layer.png``; beside it are written ``heads_sorted``, ``heads``,
        ``metrics``, ``token_maps``, ``token_maps_common`` and ``aligned``.
    classes
        The figure of deviations over classes, where it is wanted.
    """
    # All is read before anything is drawn, so that nothing is left half done.
    rows = [row for model in models for row in read_attention(_of(table, model))]
    every = panels(CURVES, table.parent.name, rows, models, "by_layer")
    for model in models:
        head_figures.drawn_of(every, model)
    common = [_read_maps(maps, model, [*TOKEN_MAPS]) for model in models]
    limit = map_figures.common_limit(common)
    drawn = [*TOKEN_MAPS, *(f"{kind}{CLASS_DEVIATION}" for kind in TOKEN_MAPS), *OFFSET_MAPS]
    for model in models:
        folder = _of(out, model).parent
        _draw_heads(every, model, folder)
        own = _read_maps(maps, model, drawn)
        for name, figure in (
            ("token_maps", map_figures.own_scale(own, model)),
            ("token_maps_common", map_figures.common_scale(own, model, limit, len(models))),
        ):
            save_with_numbers(figure, folder / f"{name}.png", TokenRow, token_rows(own))
        figure = map_figures.aligned_figure(own, model)
        save_with_numbers(figure, folder / "aligned.png", OffsetRow, offset_rows(own))
        if classes is not None:
            deviations = token_rows(own, CLASS_DEVIATION)
            figure = map_figures.class_deviation(own, model)
            save_with_numbers(figure, _of(classes, model), TokenRow, deviations)


def _of(path: Path, model: Model) -> Path:
    return Path(str(path).replace("{model}", model.id))


def _draw_heads(every: Sequence[Panel], model: Model, folder: Path) -> None:
    names = {measure.score for measure in CURVES.measures if measure.heads}
    h, of_heads = head_figures, [panel for panel in every if panel.name in names]
    for name, drawn, draw, kind, numbers in (
        ("by_layer", every, h.by_layer_figure, h.LayerRow, h.layer_rows),
        ("heads_sorted", of_heads, h.sorted_figure, h.SortedRow, h.sorted_rows),
        ("heads", of_heads, h.heads_figure, h.HeatRow, h.heat_rows),
        ("metrics", of_heads, h.pairs_figure, h.PairRow, h.pair_rows),
    ):
        figure = draw(drawn, model)
        save_with_numbers(figure, folder / f"{name}.png", kind, numbers(drawn, model))


def _read_maps(path: Path, model: Model, names: Sequence[str]) -> AttentionMaps:
    """Read the named maps of a model, as far as it has them."""
    path = _of(path, model)
    maps, dataset = read_maps(path, names), path.parent.name
    if (maps.model, maps.dataset) != (model.id, dataset):
        raise AnalysisError(
            f"{path} holds maps of {maps.model} on {maps.dataset}, not of {model.id} on {dataset}: "
            "compute it again (vitfeat run attention)"
        )
    return maps
