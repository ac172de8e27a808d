"""The frame that figures of models' CKA share: a panel a dataset (down) and token kind (across)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitfeat.analyses.similarity.compared import Compared
from vitfeat.figures import style
from vitfeat.figures.blocks import BLOCK_TITLE, head
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.fallbacks import with_fallbacks
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space
from vitfeat.text import plural

TOO_FEW = "fewer than two models have values"


@dataclass(frozen=True)
class Panels:
    """What a figure is of: CKA, at least one block, of models whose stand-ins are marked."""

    blocks: Sequence[Compared]
    models: Sequence[Model]
    remarks: Sequence[str]

    @staticmethod
    def of(
        blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str]
    ) -> Panels:
        """Mark the models that something stands in for; `left_out` have no CLS token at all."""
        return Panels(blocks, *with_fallbacks(blocks, models, left_out))

    def sheet(
        self,
        row: tuple[float, float],
        column: Space,
        *,
        title: str,
        note: str,
        legend: Sequence[Artist],
        warnings: Sequence[str] = (),
        said: Mapping[Compared, str] | None = None,
    ) -> tuple[Figure, list[Axes]]:
        """Add the blocks' panels.

        `row` is inches of a panel's height, and below it; `warnings` stand before the remarks,
        `said` behind the number of images above each panel.
        """
        datasets = list(dict.fromkeys(block.dataset for block in self.blocks))
        kinds = sorted({block.tokens for block in self.blocks}, key=list(TOKEN_NAMES).index)
        sheet = Sheet(
            [Space(BLOCK_TITLE, *row)] * len(datasets),
            [column] * len(kinds),
            title=title,
            note=note,
            legend=legend,
            remarks=[*warnings, *self.remarks],
        )
        axes = []
        for block in self.blocks:
            ax = sheet.axes(datasets.index(block.dataset), kinds.index(block.tokens))
            ax.set_label(f"{block.dataset}/{block.tokens}")
            source = f"{block.dataset}, {plural(block.n_images, 'image')}"
            head(ax, TOKEN_NAMES[block.tokens], source + (said[block] if said else ""))
            ax.spines[["top", "right"]].set_visible(False)
            axes.append(ax)
        return sheet.figure, axes


def say_instead(ax: Axes, text: str) -> None:
    """Write why there is nothing in a panel."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", size=style.SMALL_SIZE)
