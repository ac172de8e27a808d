"""The tables of all tasks in one, and the best layers: files in, files out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vitfeat.analyses.headlines import BestTaskRow, best, collect
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import TaskRow, read_task
from vitfeat.errors import AnalysisError
from vitfeat.jobs.model_tables import read_model
from vitfeat.tables import write_table
from vitfeat.text import nearest, plural


def reader(task: str) -> Callable[[Path], list[TaskRow]]:
    """Return what reads a table of a task, and refuses tables of other tasks."""

    def read(path: Path) -> list[TaskRow]:
        rows = read_task(path)
        if others := {row.task for row in rows} - {task}:
            raise AnalysisError(
                f"{path} holds values of {', '.join(sorted(others))}, not of {task}: compute it "
                "again"
            )
        return rows

    return read


def collect_tasks(
    results: Path,
    chosen: Sequence[str],
    models: Sequence[str],
    out: Path,
    out_best: Path,
    *,
    log: Callable[[str], None],
) -> None:
    """Write all tasks' values of whole datasets into one table, and the best layers into another.

    Parameters
    ----------
    results
        The folder below which tables are: ``{task}/{dataset}/{model}.csv``.
    chosen
        Tasks with datasets: ``{task}/{dataset}``. Rows stand in this order.
    models
        Ids, in the order of the tables.
    out, out_best
        Tables of TaskRow and BestTaskRow.
    log
        Called with a line that says how much there is.

    Raises
    ------
    AnalysisError
        A task is unknown; a table is absent, cannot be read, is of something else, or has a value
        twice.
    """
    rows: list[TaskRow] = []
    for one in chosen:
        task, _, dataset = one.partition("/")
        if task not in scored() or not dataset:
            raise AnalysisError(
                f"{one} names no task with a dataset{nearest(task, scored())}; allowed: "
                f"TASK/DATASET with a task of {', '.join(scored())}"
            )
        for model in models:
            rows += collect(read_model(results / task, dataset, model, ".csv", reader(task)))
    found = best(rows)
    write_table(out, TaskRow, rows)
    write_table(out_best, BestTaskRow, found)
    log(
        f"{plural(len(rows), 'value')} of {plural(len(models), 'model')}, "
        f"{plural(len(chosen), 'table')} each; {plural(len(found), 'best layer')}"
    )
