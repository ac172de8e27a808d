"""Settings of the analysis ``residual``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vitfeat.analyses.settings import Limit, Settings
from vitfeat.settings.fields import AnyOf, SomeOf

if TYPE_CHECKING:
    from vitfeat.config.config import Config


class ResidualSettings(Settings):
    """What the skip connections carry beside the branches of every block."""

    datasets: SomeOf[str] = Field((), description="Datasets to run on.")
    tokens: AnyOf[Literal["cls", "spatial", "all"]] = Field(
        ("cls", "spatial", "all"), description="Token kinds of the CKA between skip and branch."
    )
    images: int | None = Field(
        500,
        ge=4,
        description="Images that branches are stored for, spread over the dataset; null takes all.",
    )

    def required_taps(self) -> Mapping[str, Limit]:
        """Return norms of all images, and both branches and what they are added to of some."""
        some = ("block_input", "attn_branch", "mlp_branch") if self.tokens else ()
        return {"residual_norms": None, **dict.fromkeys(some, self.images)}


def compares(config: Config) -> bool:
    """Return whether skips and branches are compared by CKA, beside their norms."""
    settings = config.settings(ResidualSettings)
    return settings is not None and bool(settings.tokens)
