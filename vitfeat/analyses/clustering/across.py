"""How clusters are scored, and what figures of them show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Headline, Measure, Rank, Scoring

CLUSTERS = "k="
"""Beginning of variants, before the number of clusters."""

_SCORES = ("nmi", "ari", "purity")


def _kmeans(rows: Mapping[str, Sequence[ScoreRow]], _: Mapping[str, str]) -> list[str]:
    """Say how many clusters k-means had on each dataset."""
    held = {
        dataset: sorted({int(row.variant.removeprefix(CLUSTERS)) for row in some})
        for dataset, some in rows.items()
    }
    clusters = {dataset: ", ".join(map(str, numbers)) for dataset, numbers in held.items()}
    alike = len(set(clusters.values())) == 1
    named = [k if alike else f"{k} ({dataset})" for dataset, k in clusters.items()]
    return [f"k-means with k = {', '.join(dict.fromkeys(named))}."]


SCORING = Scoring(
    title="Clusters and classes",
    short="Clusters",
    headline=Headline("nmi", "NMI", ("cls", "mean", "attention_mean")),
    measures=(
        Measure("nmi", "NMI", Rank.OVERVIEW),
        Measure("ari", "ARI", Rank.SET),
        Measure("purity", "Purity", Rank.OVERVIEW),
    ),
    kinds={
        "cls": "CLS token",
        "mean": "mean of spatial tokens",
        "attention_mean": "attention patterns",
    },
    chosen=CLUSTERS,
    ranked=_SCORES,
    chance={score: f"{score}_shuffled" for score in _SCORES},
    by_chance="shuffled labels",
    footnotes=_kmeans,
)
