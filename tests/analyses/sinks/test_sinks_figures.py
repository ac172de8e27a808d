from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, lines, words
from tests.figures.drawings import figure_of
from tests.figures.made_tables import DEMO, PAPER, Made
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.sinks.across import CURVES
from vitfeat.errors import AnalysisError
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)
ALL = ("by_layer", "families", "breakout", "overview")


def share(place: int, kind: int, layer: int, head: int) -> float:
    return 0.01 * (1 + place % 7) + 0.02 * kind + 0.003 * layer + 0.001 * head


def made_rows(
    made: Sequence[Made], *, variant: str = "median/last", scale: float = 1
) -> list[ScoreRow]:
    """Shares of heads, of which the whole is the mean, and of tokens."""
    rows = []
    for place, one in enumerate(made):
        for layer in range(one.depth):
            values = {("spatial", "high_norm", ""): 0.004 * (1 + place % 7)}
            values["spatial", "high_norm_images", ""] = 0.9
            for kind, features in enumerate(("attn_cls", "attn_mean")):
                if kind or one.has_cls:
                    shares = [share(place, kind, layer, head) for head in range(one.heads)]
                    values[features, "sink_share", ""] = float(np.mean(shares))
                    for head, value in enumerate(shares):
                        values[features, "sink_share", str(head)] = value
            rows += [
                ScoreRow(
                    "sinks",
                    one.model.id,
                    "digits",
                    layer,
                    features,
                    variant,
                    score,
                    group,
                    599,
                    scale * value,
                )
                for (features, score, group), value in values.items()
            ]
    return rows


def drawn(made: Sequence[Made], draw: str, rows: Sequence[ScoreRow] | None = None) -> Figure:
    return figure_of(CURVES, draw, made, made_rows(made) if rows is None else rows)


def test_lines_are_means_over_heads_and_the_share_of_tokens() -> None:
    rows, figure = made_rows(DEMO), drawn(DEMO, "by_layer")
    for features, score in (("attn_cls", "sink_share"), ("spatial", "high_norm")):
        found = lines(axes_named(figure, f"digits/{features}"))
        for made in DEMO:
            expected = [
                row.value
                for row in rows
                if (row.model, row.features, row.score, row.group)
                == (made.model.id, features, score, "")
            ]
            np.testing.assert_allclose(found[made.model.id].get_ydata(), expected, rtol=1e-12)
    limits = {ax.get_ylim() for ax in figure.axes if str(ax.get_label()).startswith("digits/")}
    assert len(limits) == 1


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("median/last", "(above 3 times their image's median, in the last layer)"),
        ("mad/own", "(above their image's median by 10 deviations, in the same layer)"),
        ("absolute/last", "(above 150, in the last layer)"),
    ],
)
def test_the_note_says_what_high_norm_is(draw: str, variant: str, said: str) -> None:
    shown = words(drawn(DEMO[:2], draw, made_rows(DEMO[:2], variant=variant)))
    assert said in shown
    assert "digits, 599 images" in shown
    assert "No high-norm tokens" not in shown


@pytest.mark.parametrize("draw", ALL)
def test_models_without_high_norm_tokens_are_at_0_and_named(draw: str) -> None:
    rows = made_rows(DEMO[:1], scale=0) + made_rows(DEMO[1:2])
    figure = drawn(DEMO[:2], draw, rows)
    assert "No high-norm tokens: Supervised." in words(figure)
    assert_readable(figure)


@pytest.mark.parametrize("draw", ALL)
def test_shares_that_are_all_0_stand_on_an_axis_from_0(draw: str) -> None:
    figure = drawn(DEMO, draw, made_rows(DEMO, scale=0))
    low, high = next(ax.get_ylim() for ax in figure.axes if ax.get_label())
    assert -0.1 < low <= 0
    assert high >= 1
    assert_readable(figure)


@pytest.mark.parametrize("draw", ALL)
def test_models_without_cls_are_drawn_without_and_named(draw: str) -> None:
    figure = drawn([*DEMO, NO_CLS], draw)
    assert "No values of SigLIP 2: CLS query." in words(figure)
    assert_readable(figure)


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("made", [DEMO, PAPER, DEMO[:1]], ids=["demo", "paper", "one"])
def test_nothing_is_cut_and_no_texts_overlap(draw: str, made: Sequence[Made]) -> None:
    assert_readable(drawn(made, draw))


@pytest.mark.parametrize("draw", ALL)
def test_tables_without_values_are_an_error(draw: str) -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        drawn(DEMO, draw, [])
