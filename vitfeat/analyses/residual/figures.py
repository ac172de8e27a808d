"""Figures of what skip connections carry, across models: norm ratios and CKA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.residual.cka_figures import BRANCHES
from vitfeat.analyses.rows import ResidualCkaRow, ResidualNormRow
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.curves import Curve, Panel, least, missing, source
from vitfeat.figures.families import by_family
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.models import Model

RATIOS: Mapping[str, str] = {
    "cls": "CLS token",
    "spatial": "spatial tokens together",
    "spatial_tokens": "mean over spatial tokens",
}
"""Ratios in the order of the figures, and what they are called there."""

MAIN = ("cls", "spatial")
"""Ratios and token kinds of the overview."""

BAND = "Bands: one standard deviation over images either way."


def norm_panels(
    dataset: str, rows: Iterable[ResidualNormRow], models: Sequence[Model]
) -> list[Panel]:
    """Put the norm ratios of one dataset together, a panel for each branch and ratio.

    A band is one standard deviation over images to either side.

    Parameters
    ----------
    dataset
        Its name.
    rows
        Of all models.
    models
        Those to draw.
    """
    found: defaultdict[tuple[str, str, str], list[ResidualNormRow]] = defaultdict(list)
    for row in rows:
        found[row.branch, row.ratio, row.model].append(row)
    return [
        Panel(
            dataset,
            f"{branch}/{ratio}",
            f"{BRANCHES[branch]}, {RATIOS[ratio]}",
            "",
            [_norms(model, given) for model in models if (given := found[branch, ratio, model.id])],
            log=True,
        )
        for branch in BRANCHES
        for ratio in RATIOS
    ]


def norms_figure(panels: Sequence[Panel], models: Sequence[Model]) -> Figure:
    """Draw the norm ratios of one dataset by layer.

    Parameters
    ----------
    panels
        From :func:`norm_panels`.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    return by_layer(
        [Section("", panels, len(RATIOS))],
        models,
        title="Norm of the skip input over norm of the branch",
        note=f"{source(panels)}. Means over images, logarithmic scale; layers counted from 0.",
        band=BAND,
        remarks=missing(panels, models),
    )


def families_figure(panels: Sequence[Panel], models: Sequence[Model]) -> Figure:
    """Draw the norm ratios of one dataset over depth, a panel for each family.

    Parameters and errors are those of :func:`norms_figure`.
    """
    return by_family(
        panels,
        models,
        title="Norm of the skip input over norm of the branch, by family",
        note=f"{source(panels)}. Means over images, logarithmic scale. Over depth: 0 is the first "
        "layer, 1 the last.",
        remarks=missing(panels, models),
    )


def cka_panels(
    dataset: str, rows: Sequence[ResidualCkaRow], models: Sequence[Model]
) -> list[Panel]:
    """Take the CKA of skip and branch of the same block, a panel for each branch and token kind.

    Parameters
    ----------
    dataset
        Its name.
    rows
        Of all models.
    models
        Those to draw.
    """
    same: defaultdict[tuple[str, str, str], dict[int, ResidualCkaRow]] = defaultdict(dict)
    for row in rows:
        if row.layer_skip == row.layer_branch:
            same[row.branch, row.tokens, row.model][row.layer_skip] = row
    held = {row.tokens for row in rows}
    return [
        Panel(
            dataset,
            f"cka/{branch}/{tokens}",
            f"{BRANCHES[branch]}, {TOKEN_NAMES[tokens]}",
            "CKA",
            [
                _diagonal(model, given)
                for model in models
                if (given := same[branch, tokens, model.id])
            ],
        )
        for branch in BRANCHES
        for tokens in TOKEN_NAMES
        if tokens in held
    ]


def overview_drawn(panels: Iterable[Panel]) -> list[Panel]:
    """Return the panels of the overview's ratios and tokens."""
    return [panel for panel in panels if panel.name.rpartition("/")[2] in MAIN]


def overview(
    norms: Mapping[str, Sequence[Panel]],
    cka: Mapping[str, Sequence[Panel]],
    models: Sequence[Model],
) -> Figure:
    """Draw norm ratios, and CKA of skip and branch of the same block, of all datasets.

    Parameters
    ----------
    norms, cka
        Of each dataset, from :func:`norm_panels` and :func:`cka_panels`; CKA may be empty.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        A dataset without values.
    """
    sections = []
    for dataset, some in norms.items():
        drawn = overview_drawn(some)
        heading = f"{source(drawn)}: norm of the skip input over norm of the branch, logarithmic"
        sections.append(Section(heading, drawn, 2))
        if same := overview_drawn(cka.get(dataset, ())):
            heading = f"{source(same)}: linear CKA of skip input and branch of the same block"
            sections.append(Section(heading, same, 2, common=True))
    every = [panel for section in sections for panel in section.panels]
    return by_layer(
        sections,
        models,
        title="What skip connections carry beside the branches",
        note="Means over images; layers counted from 0.",
        band="Bands: one standard deviation over images either way (norms).",
        remarks=[*_gaps(cka.values()), *missing(every, models)],
    )


def _gaps(cka: Iterable[Sequence[Panel]]) -> list[str]:
    """Say why curves of the overview have gaps, where some do."""
    drawn = [panel for some in cka for panel in overview_drawn(some)]
    gaps = any(np.isnan(curve.values).any() for panel in drawn for curve in panel.curves)
    why = (
        "Gaps: no CKA (nan) where a side is the same for all images, as the CLS token that enters "
        "block 0 is."
    )
    return [why] if gaps else []


def _norms(model: Model, rows: Sequence[ResidualNormRow]) -> Curve:
    ordered = sorted(rows, key=lambda row: row.layer)
    mean = np.array([row.mean for row in ordered])
    deviation = np.array([row.deviation for row in ordered])
    layers = tuple(row.layer for row in ordered)
    n_images = least(row.n_images for row in ordered)
    return Curve(model, layers, mean, mean - deviation, mean + deviation, n_images, layers[-1])


def _diagonal(model: Model, rows: Mapping[int, ResidualCkaRow]) -> Curve:
    layers = tuple(sorted(rows))
    values = np.array([rows[layer].cka for layer in layers])
    n_images = least(row.n_images for row in rows.values())
    return Curve(model, layers, values, values, values, n_images, layers[-1])
