"""Settings of the analysis ``cka``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from vitfeat.analyses.settings import PRINTED, Limit, Settings, token_taps
from vitfeat.settings.fields import Seed, SomeOf


class CkaSettings(Settings):
    """Linear CKA, layer by layer, of every pair of models."""

    datasets: SomeOf[str] = Field((), description="Datasets to compare on.")
    tokens: SomeOf[Literal["cls", "mean", "spatial", "all"]] = Field(
        ("cls", "spatial", "all"),
        description=(
            "Token kinds: CLS, mean of the spatial tokens, all spatial tokens flattened, all "
            "tokens."
        ),
    )
    without_cls: Literal["leave_out", "mean"] = Field(
        "leave_out",
        description=(
            "What stands in for the CLS token of a model that has none: nothing (leave_out) "
            "or the mean of its spatial tokens."
        ),
    )
    estimators: SomeOf[Literal["debiased", "biased", "minibatch", "paper"]] = Field(
        ("debiased",), description="Estimators; figures show the first."
    )
    batch_size: Annotated[int, PRINTED] = Field(
        256, ge=4, description="Images of a batch (minibatch and paper)."
    )
    batch_order: Annotated[Literal["shuffled", "stored"], PRINTED] = Field(
        "shuffled",
        description=(
            "Images of a batch: drawn at random (shuffled), or as they follow one another in "
            "the dataset (stored), which of a dataset sorted by class are mostly of one "
            "class."
        ),
    )
    seed: Annotated[Seed, PRINTED] = Field(
        0, description="Seed of the order that batches are drawn in."
    )

    def used(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return what makes a difference: batches where an estimator has some."""
        asked = super().used(keys)
        unused = (
            () if {"minibatch", "paper"} & set(self.estimators) else ("batch_size", "batch_order")
        )
        if unused or self.batch_order == "stored":
            unused = (*unused, "seed")
        if "cls" not in self.tokens:
            unused = (*unused, "without_cls")
        return {key: value for key, value in asked.items() if key not in unused}

    def required_taps(self) -> Mapping[str, Limit]:
        """Return what the asked token kinds, and what may stand in, are made from."""
        # Which models lack a CLS token is known when they are built, not before.
        stands_in = ("mean",) if "cls" in self.tokens and self.without_cls == "mean" else ()
        return token_taps((*self.tokens, *stands_in))
