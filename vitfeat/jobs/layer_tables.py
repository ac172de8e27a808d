"""Tables of some layers each, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.errors import AnalysisError
from vitfeat.store.opening import open_store
from vitfeat.tables import write_table


def join_layers(tables: Sequence[Path], store_path: Path, out: Path) -> None:
    """Put tables of some layers together into the one that a single job would have written.

    Those of layers that the model does not have are without rows; all of the store's must be there.
    """
    table_of: dict[int, Path] = {}
    rows: list[ScoreRow] = []
    for table in tables:
        some = read_scores(table)
        for layer in {row.layer for row in some}:
            if layer in table_of:
                raise AnalysisError(f"{table_of[layer]} and {table} both have layer {layer}")
            table_of[layer] = table
        rows += some
    store = open_store(store_path)
    if rows and (absent := [layer for layer in store.layers if layer not in table_of]):
        raise AnalysisError(
            f"{out}: no table of layer {', '.join(map(str, absent))} of {store.path}: the depth "
            f"of {store.model} was guessed wrong from its name; set layer_jobs: false"
        )
    # As one job orders them: features by features, and their layers.
    kinds = list(dict.fromkeys(row.features for row in rows))
    write_table(out, ScoreRow, sorted(rows, key=lambda row: (kinds.index(row.features), row.layer)))
