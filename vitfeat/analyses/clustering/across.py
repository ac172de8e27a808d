"""The figures of clustering across models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.analyses.rows import ClusteringRow, read_clustering
from vitfeat.analyses.scoring import Curves, Measure, Point, Rank
from vitfeat.text import plural

_SCORES = ("nmi", "ari", "purity")
_SHUFFLED = "shuffled"


def _point(row: ClusteringRow) -> Point:
    """Name scores against shuffled labels, which are a baseline, after those labels."""
    shuffled = f" {_SHUFFLED}" if row.labels == _SHUFFLED else ""
    return Point(
        row.model,
        row.layer,
        f"{row.score}{shuffled}",
        row.n_images,
        row.value,
        kind=row.features,
        features=row.features,
        member=str(row.seed),
    )


def _kmeans(rows: Mapping[str, Sequence[ClusteringRow]], _: Mapping[str, str]) -> list[str]:
    """Say how many clusters k-means had on each dataset, and how many seeds there are."""
    clusters = {
        dataset: ", ".join(str(k) for k in sorted({row.n_clusters for row in some}))
        for dataset, some in rows.items()
    }
    alike = len(set(clusters.values())) == 1
    named = [k if alike else f"{k} ({dataset})" for dataset, k in clusters.items()]
    seeds = len({row.seed for some in rows.values() for row in some})
    over = "one seed" if seeds == 1 else f"means over {plural(seeds, 'seed')}"
    return [f"k-means with k = {', '.join(dict.fromkeys(named))}, {over}."]


CURVES = Curves(
    title="Clusters and classes",
    figures={"by_layer": "by_layer", "families": "families", "best": "best"},
    read=read_clustering,
    point=_point,
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
    ranked=_SCORES,
    chance={score: f"{score} {_SHUFFLED}" for score in _SCORES},
    by_chance="shuffled labels",
    footnotes=_kmeans,
)
