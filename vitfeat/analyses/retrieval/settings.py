"""Settings of the analysis ``retrieval``."""

from __future__ import annotations

from pydantic import Field

from vitfeat.analyses.settings import TokenSettings
from vitfeat.settings.fields import Count, SomeOf


class RetrievalSettings(TokenSettings):
    """Retrieval of images of the same landmark: revisited Oxford and Paris."""

    datasets: SomeOf[str] = Field((), description="Datasets of the layout revisited.")
    ranks: SomeOf[Count] = Field((1, 5, 10), description="Ranks of mean precision.")
