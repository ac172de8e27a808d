# Settings, targets and needs: all tasks together: one table, and figures.
from vitfeat.analyses.registry import scored

ASKED_TASKS = [task for task in scored() if CONFIG.analyses.get(task) is not None]

ALL_TASKS_FIGURES = ("heat_map", "best_depth", "by_layer")


def task_datasets():
    """Return the tasks that are asked for with their datasets, as `task/dataset`."""
    return [
        f"{task}/{dataset}"
        for task in ASKED_TASKS
        for dataset in CONFIG.analyses.get(task).datasets
    ]


def collected_tables():
    """Return the table of each task, dataset and model."""
    return [f"{RESULTS}/{one}/{model.id}.csv" for one in task_datasets() for model in CONFIG.models]


def collect_settings():
    return {"tasks": task_datasets(), "models": [model.id for model in CONFIG.models]}


def all_tasks_outputs():
    """Return the files of the figures of all tasks: PNG, PDF, and the numbers that they show."""
    folder = f"{RESULTS}/tasks/sets/{{chosen}}"
    return [
        f"{folder}/{name}.{kind}" for name in ALL_TASKS_FIGURES for kind in ("png", "pdf", "csv")
    ]


def task_targets():
    """Return the collected tables, and the figures of all tasks together."""
    if not ASKED_TASKS:
        return []
    return [
        *(f"{RESULTS}/tasks/{name}.csv" for name in ("all", "best")),
        *(
            f"{RESULTS}/tasks/sets/{chosen}/{name}.png"
            for chosen in model_sets()
            for name in ALL_TASKS_FIGURES
        ),
    ]


TARGETS.append(task_targets)
