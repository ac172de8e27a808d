"""Figures of single models' attention, from the tables and maps of all models of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitfeat.analyses.attention.aligned import aligned_figure
from vitfeat.analyses.attention.figures import OF_HEADS, panels
from vitfeat.analyses.attention.head_lines import (
    LayerRow,
    SortedRow,
    by_layer_figure,
    layer_rows,
    sorted_figure,
    sorted_rows,
)
from vitfeat.analyses.attention.head_pairs import PairRow, pair_rows, pairs_figure
from vitfeat.analyses.attention.heat_maps import HeatRow, drawn_of, heads_figure, heat_rows
from vitfeat.analyses.attention.map_file import (
    CLASS_DEVIATION,
    OFFSET_MAPS,
    TOKEN_MAPS,
    AttentionMaps,
    open_maps,
    tokens_of,
)
from vitfeat.analyses.attention.map_rows import OffsetRow, TokenRow, offset_rows, token_rows
from vitfeat.analyses.attention.token_maps import (
    class_deviation,
    common_limit,
    common_scale,
    own_scale,
)
from vitfeat.analyses.rows import read_attention
from vitfeat.errors import AnalysisError
from vitfeat.figures.breakout import HeadPanel
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers

if TYPE_CHECKING:
    import xarray


def write_model_figures(
    table: Path, maps: Path, out: Path, classes: Path | None, *, models: Sequence[Model]
) -> None:
    """Write the figures of each model's attention: PNG, PDF, and a table of what each shows.

    In paths, ``{model}`` stands for the id of each.

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
    models
        Those to draw, which share scales.

    Raises
    ------
    AnalysisError
        A model has no values, or a table or file of maps is absent, damaged or of something else.
    """
    # All is read before anything is drawn, so that nothing is left half done.
    rows = [row for model in models for row in read_attention(_of(table, model))]
    every = panels(table.parent.name, rows, models)
    for model in models:
        drawn_of(every, model)
    limit = common_limit([_read_maps(_of(maps, model), model.id) for model in models])
    for model in models:
        _draw_heads(every, model, _of(out, model).parent)
        own = _read_maps(_of(maps, model), model.id, whole=True)
        _draw_maps(own, model, (limit, len(models)), _of(out, model).parent)
        if classes is not None:
            deviations = token_rows(own, CLASS_DEVIATION)
            figure = class_deviation(own, model)
            save_with_numbers(figure, _of(classes, model), TokenRow, deviations)


def _of(path: Path, model: Model) -> Path:
    return Path(str(path).replace("{model}", model.id))


def _draw_heads(every: Sequence[HeadPanel], model: Model, folder: Path) -> None:
    """Draw the metrics of every head."""
    figure = by_layer_figure(every, model)
    save_with_numbers(figure, folder / "by_layer.png", LayerRow, layer_rows(every, model))
    of_heads = [panel for panel in every if panel.name in OF_HEADS]
    for name, draw, kind, numbers in (
        ("heads_sorted", sorted_figure, SortedRow, sorted_rows),
        ("heads", heads_figure, HeatRow, heat_rows),
        ("metrics", pairs_figure, PairRow, pair_rows),
    ):
        figure = draw(of_heads, model)
        save_with_numbers(figure, folder / f"{name}.png", kind, numbers(of_heads, model))


def _draw_maps(maps: AttentionMaps, model: Model, common: tuple[float, int], folder: Path) -> None:
    """Draw averages over images; `common` is the end of the scale of so many models."""
    for name, figure in (
        ("token_maps", own_scale(maps, model)),
        ("token_maps_common", common_scale(maps, model, *common)),
    ):
        save_with_numbers(figure, folder / f"{name}.png", TokenRow, token_rows(maps))
    figure = aligned_figure(maps, model)
    save_with_numbers(figure, folder / "aligned.png", OffsetRow, offset_rows(maps))


def _read_maps(path: Path, model: str, *, whole: bool = False) -> AttentionMaps:
    """Read a model's token maps, and all else that is drawn of it where it is to be drawn."""
    more = [f"{kind}{CLASS_DEVIATION}" for kind in TOKEN_MAPS] + list(OFFSET_MAPS)
    with open_maps(path) as opened:
        maps = _averages(opened, [*TOKEN_MAPS, *(more if whole else ())])
    dataset = path.parent.name
    if (maps.model, maps.dataset) != (model, dataset):
        raise AnalysisError(
            f"{path} holds maps of {maps.model} on {maps.dataset}, not of {model} on {dataset}: "
            "compute it again (vitfeat run attention)"
        )
    return maps


def _averages(opened: xarray.Dataset, names: Sequence[str]) -> AttentionMaps:
    """Read the named maps, as far as the file has them."""
    classes = {}
    if "class" in opened.variables:
        labels, texts = opened["class"].values, opened["class_name"].values
        classes = {int(label): str(text) for label, text in zip(labels, texts, strict=True)}
    about = opened.attrs
    return AttentionMaps(
        model=str(about["model"]),
        dataset=str(about["dataset"]),
        n_images=int(about["n_images"]),
        tokens=tokens_of(opened),
        null_rows=str(about["null_rows"]),
        layers=tuple(int(layer) for layer in opened["layer"].values),
        arrays={name: opened[name].values for name in names if name in opened.variables},
        classes=classes,
    )
