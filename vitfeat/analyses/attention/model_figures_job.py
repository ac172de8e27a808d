"""Figures of one model's attention, from the tables and maps of all models of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vitfeat.analyses.attention.heat_maps import HeatRow, heads_figure, heat_rows
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
from vitfeat.figures.models import models_from
from vitfeat.jobs.figure_files import save_with_numbers

if TYPE_CHECKING:
    import xarray


def write_model_figures(
    folder: Path,
    model: str,
    models: Sequence[Mapping[str, str]],
    out: Path,
    *,
    by_class: bool = False,
) -> None:
    """Write all figures of one model's attention: PNG, PDF, and a table of what each shows.

    Parameters
    ----------
    folder
        Where ``{model}.csv`` and ``{model}.nc`` of all models are; it has the dataset's name.
    model
        Id of the one to draw.
    models
        ``id``, ``label``, ``family`` and ``size`` of all models that share a scale.
    out
        Folder to write into: ``by_layer``, ``heads_sorted``, ``heads``, ``metrics``,
        ``token_maps``, ``token_maps_common`` and ``aligned``.
    by_class
        Whether ``token_map_classes`` is drawn too.

    Raises
    ------
    AnalysisError
        The model is not among the models, has no values, or a table or file of maps is absent,
        damaged or of something else.
    """
    known = {one.id: one for one in models_from(models)}
    if model not in known:
        raise AnalysisError(
            f"--model {model} is not among --models ({', '.join(known)}): name one of them"
        )
    drawn = known[model]
    # All is read before anything is drawn, so that nothing is left half done.
    rows = [row for one in known for row in read_attention(folder / f"{one}.csv")]
    averages = {name: _read_maps(folder, name, whole=name == model) for name in known}
    every = panels(folder.name, rows, list(known.values()))
    of_heads = [panel for panel in every if panel.name in OF_HEADS]
    save_with_numbers(
        by_layer_figure(every, drawn), out / "by_layer.png", LayerRow, layer_rows(every, drawn)
    )
    for name, figure, kind, found in (
        ("heads_sorted", sorted_figure, SortedRow, sorted_rows),
        ("heads", heads_figure, HeatRow, heat_rows),
        ("metrics", pairs_figure, PairRow, pair_rows),
    ):
        save_with_numbers(
            figure(of_heads, drawn), out / f"{name}.png", kind, found(of_heads, drawn)
        )
    maps = averages[model]
    limit = common_limit(list(averages.values()))
    for name, token_figure in (
        ("token_maps", own_scale(maps, drawn)),
        ("token_maps_common", common_scale(maps, drawn, limit, len(known))),
    ):
        save_with_numbers(token_figure, out / f"{name}.png", TokenRow, token_rows(maps))
    if by_class:
        deviations = token_rows(maps, CLASS_DEVIATION)
        save_with_numbers(
            class_deviation(maps, drawn), out / "token_map_classes.png", TokenRow, deviations
        )
    save_with_numbers(
        aligned_figure(maps, drawn), out / "aligned.png", OffsetRow, offset_rows(maps)
    )


def _read_maps(folder: Path, model: str, *, whole: bool) -> AttentionMaps:
    """Read a model's token maps, and all else that is drawn of it where it is the one to draw."""
    more = [f"{kind}{CLASS_DEVIATION}" for kind in TOKEN_MAPS] + list(OFFSET_MAPS)
    path = folder / f"{model}.nc"
    with open_maps(path) as opened:
        maps = _averages(opened, [*TOKEN_MAPS, *(more if whole else ())])
    if (maps.model, maps.dataset) != (model, folder.name):
        raise AnalysisError(
            f"{path} holds maps of {maps.model} on {maps.dataset}, not of {model} on "
            f"{folder.name}: compute it again (vitfeat attention)"
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
