"""What an analysis says of itself; everything else asks here and lists none."""

from __future__ import annotations

from dataclasses import dataclass

from vitfeat.analyses.settings import Settings


@dataclass(frozen=True)
class Analysis:
    """Something that stores are turned into.

    Attributes
    ----------
    name
        Its key in a config, its folder of results, its package.
    settings
        The model of its settings.
    place
        Where it stands among the others: in docs, figures of several, and lists.
    labels
        Whether it needs the label of every image.
    annotations
        The kind of what must be annotated beside the images, if anything.
    own_pass
        Whether it is of so few images that its own job pushes them through the models, beside the
        stores.
    scored
        Whether its tables are of TaskRow, so that they are collected into one.
    """

    name: str
    settings: type[Settings]
    place: int
    labels: bool = False
    annotations: str | None = None
    own_pass: bool = False
    scored: bool = False
