"""Figures of one model's attention on each token, averaged over images: a map a layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import CLASS_DEVIATION, TOKEN_MAPS, AttentionMaps
from vitfeat.analyses.attention.mosaic import Titled, arranged, colour_bar, mosaic, sheet_of
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import empty_figure
from vitfeat.text import plural

Floats = NDArray[np.float64]

RENORMALISED = "spatial_queries_renormalised"

TITLES: Mapping[str, tuple[str, str]] = {
    "all_queries": ("All queries", "mean over all tokens as queries"),
    "cls_query": ("CLS query", "what the CLS token attends to"),
    "spatial_queries": ("Spatial queries", "mean over the grid's tokens as queries"),
    RENORMALISED: (
        "Spatial queries, renormalised",
        "each query's shares on the grid",
    ),
}

COVERED = 0.995
"""Share of all values that the common scale shows without cutting them off."""


@dataclass(frozen=True, eq=False)
class TokenPanel:
    """Maps of all layers and heads.

    Attributes
    ----------
    name
        As in the file of maps.
    spatial
        (layer, head, y, x): values of the grid's tokens.
    shares
        (layer, head, 2): values of CLS, and of all registers together; None where all of the
        attention is on the grid.
    n_tokens
        Number of tokens that attention is shared among.
    """

    name: str
    spatial: Floats
    shares: Floats | None
    n_tokens: int

    @property
    def times_uniform(self) -> Floats:
        """The maps as multiples of what each token has where attention is uniform."""
        return self.spatial * self.n_tokens

    @property
    def of_own_end(self) -> Floats:
        """Each map divided by what its colours end at; one without any attention stays 0."""
        return overlay.scaled(self.spatial, overlay.ends(self.spatial, overlay.PERCENTILE))


def token_panels(maps: AttentionMaps, ending: str = "") -> list[TokenPanel]:
    """Split the token maps of a model into grid and prefix.

    Parameters
    ----------
    maps
        Of one model; the maps that it does not have are left out.
    ending
        What follows the maps' names: nothing, or that of the deviation over classes.
    """
    tokens = maps.tokens
    found = []
    for name, dimensions in TOKEN_MAPS.items():
        if name + ending not in maps.arrays:
            continue
        values = np.asarray(maps.arrays[name + ending], dtype=np.float64)
        if dimensions == ("y", "x"):
            found.append(TokenPanel(name, values, None, tokens.n_spatial))
            continue
        spatial = values[..., tokens.n_prefix :].reshape(*values.shape[:2], *tokens.grid)
        on_cls = values[..., : int(tokens.has_cls)].sum(axis=-1)
        shares = np.stack([on_cls, values[..., tokens.registers].sum(axis=-1)], axis=-1)
        found.append(
            TokenPanel(name, spatial, shares if tokens.n_prefix else None, tokens.n_tokens)
        )
    return found


def common_limit(models: Sequence[AttentionMaps], ending: str = "") -> float:
    """Return where the common scale ends, in multiples of uniform attention.

    Of all values of all maps and models, :data:`COVERED` are no larger.

    Parameters
    ----------
    models
        All that share the scale.
    ending
        As in :func:`token_panels`.

    Raises
    ------
    AnalysisError
        There are no values.
    """
    values = [p.times_uniform.ravel() for maps in models for p in token_panels(maps, ending)]
    held = np.concatenate(values) if values else np.empty(0)
    held = held[np.isfinite(held)]
    if not held.size:
        raise AnalysisError("no attention maps have values to draw: compute some first")
    return float(np.quantile(held, COVERED)) or 1.0


def own_scale(maps: AttentionMaps, model: Model) -> Figure:
    """Draw the token maps of a model, each on its own scale.

    Parameters
    ----------
    maps
        Of the model.
    model
        For its label.

    Raises
    ------
    AnalysisError
        There are no maps.
    """
    panels = token_panels(maps)
    return _figure(
        maps,
        panels,
        [panel.of_own_end for panel in panels],
        f"{model.label}: attention on each token",
        overlay.said_of_scale(overlay.PERCENTILE),
        ("attention", overlay.named(overlay.PERCENTILE), True),
    )


def common_scale(maps: AttentionMaps, model: Model, limit: float, n_models: int) -> Figure:
    """Draw the token maps of a model on one scale, in multiples of uniform attention.

    Parameters
    ----------
    maps, model
        As in :func:`own_scale`.
    limit
        Where the scale ends: from :func:`common_limit` of all models.
    n_models
        Number of models that share the scale.

    Raises
    ------
    AnalysisError
        There are no maps.
    """
    panels = token_panels(maps)
    shared = f" of all {n_models} models" if n_models > 1 else ""
    return _figure(
        maps,
        panels,
        [panel.times_uniform / limit for panel in panels],
        f"{model.label}: attention on each token, common scale",
        f"In multiples of uniform attention; the scale ends at {limit:.3g}, above which are "
        f"{_above()} of the values{shared}.",
        ("attention,\n× uniform", limit, True),
    )


def class_deviation(maps: AttentionMaps, model: Model) -> Figure:
    """Draw how much the token maps of a model differ between classes.

    Parameters and errors are those of :func:`own_scale`; without two classes the figure says so.
    """
    panels = token_panels(maps, CLASS_DEVIATION)
    title = f"{model.label}: deviation of token maps over classes"
    if not panels:
        return empty_figure(
            title=title,
            note=f"{source(maps)}.",
            reason="The images have fewer than two classes: there is no deviation.",
        )
    limit = common_limit([maps], CLASS_DEVIATION)
    return _figure(
        maps,
        [TokenPanel(p.name, p.spatial, None, p.n_tokens) for p in panels],
        [panel.times_uniform / limit for panel in panels],
        title,
        f"Standard deviation of the means of {len(maps.classes):,} classes (ddof 1), "
        "in multiples of uniform attention; the scale ends "
        f"at {limit:.3g}, above which are {_above()} of the values.",
        ("deviation,\n× uniform", limit, True),
    )


def _above() -> str:
    return f"{100 * (1 - COVERED):.2g} %"


def _figure(
    maps: AttentionMaps,
    panels: Sequence[TokenPanel],
    levels: Sequence[Floats],
    title: str,
    note: str,
    scale: tuple[str, float | str, bool],
) -> Figure:
    if not panels:
        raise AnalysisError(
            f"no token maps of {maps.model} on {maps.dataset}: compute them (vitfeat run attention)"
        )
    bars = any(panel.shares is not None for panel in panels)
    shape = levels[0].shape[:2]
    across, pixels = arranged(len(panels), shape, maps.tokens.grid, bars=bars)
    no_bar = np.full((*shape, 2), np.nan)
    shown = []
    for panel, drawn in zip(panels, levels, strict=True):
        shares = no_bar if panel.shares is None else panel.shares
        name, detail = TITLES[panel.name]
        if panel.name == RENORMALISED and (prefix := _prefix(maps.tokens)):
            detail = f"without {prefix}: {detail}"
        made = mosaic(drawn, pixels, shares if bars else None)
        shown.append(Titled(made, name, detail, panel.name))
    with style.settings():
        sheet, axes = sheet_of(
            shown,
            across,
            maps.layers,
            title=title,
            note=f"{source(maps)}. {note}",
            legend=_legend(maps) if bars else (),
            remarks=_remarks(maps, bars, [panel.name for panel in panels]),
        )
        label, top, beyond = scale
        colour_bar(sheet, axes[0], label, top, beyond=beyond)
    return sheet.figure


def source(maps: AttentionMaps) -> str:
    """Say what maps are averaged over."""
    return f"{maps.dataset}, mean over {plural(maps.n_images, 'image')}"


def _legend(maps: AttentionMaps) -> list[Patch]:
    named = {"cls": ("on CLS", maps.tokens.has_cls)}
    named["registers"] = ("on registers", bool(maps.tokens.n_registers))
    return [
        Patch(facecolor=overlay.BAR_COLOURS[kind], label=label)
        for kind, (label, there) in named.items()
        if there
    ]


def _remarks(maps: AttentionMaps, bars: bool, names: Sequence[str]) -> list[str]:
    remarks = []
    if bars:
        remarks.append(
            f"Bar below a map: share of attention that is on {_prefix(maps.tokens)}; its whole "
            "width is 1."
        )
    if not maps.tokens.has_cls:
        remarks.append("The model has no CLS token: no map of its attention.")
    if RENORMALISED in names:
        kept = "count as zero" if maps.null_rows == "zero" else "are left out"
        remarks.append(f"Renormalised: queries that attend to no spatial token {kept}.")
    return remarks


def _prefix(tokens: Tokens) -> str:
    """Name the tokens that are not on the grid; empty if there are none."""
    kinds = {"CLS": tokens.has_cls, "registers": bool(tokens.n_registers)}
    return " and ".join(kind for kind, there in kinds.items() if there)
