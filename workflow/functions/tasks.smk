# Settings, targets and needs: all tasks together: one table, and figures.
from vitfeat.plan.task_needs import task_figures
from vitfeat.analyses.registry import scored

ASKED_TASKS = [task for task in scored() if CONFIG.analyses.get(task) is not None]

# Figures of a set, by the most that a task has: outputs of a rule cannot depend on its wildcards.
TASK_FIGURES = {
    "plain": ("by_layer", "families", "best"),
    "details": ("by_layer", "families", "best", "details"),
    "groups": ("by_layer", "families", "best", "details", "groups"),
}
ALL_TASKS_FIGURES = ("heat_map", "best_depth", "by_layer")


def tasks_with(most):
    """Return the tasks that have just these figures, as a pattern."""
    return "|".join(task for task in scored() if task_figures(task) == TASK_FIGURES[most])


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


def task_overview_tables(wildcards):
    """Return the tables of all datasets and models of a task."""
    return [
        f"{RESULTS}/{wildcards.task}/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get(wildcards.task).datasets
        for model in CONFIG.models
    ]


def collect_settings():
    return {"tasks": task_datasets(), "models": [model.id for model in CONFIG.models]}


def all_tasks_outputs():
    """Return the files of the figures of all tasks: PNG, PDF, and the numbers that they show."""
    folder = f"{RESULTS}/tasks/sets/{{chosen}}"
    return [
        f"{folder}/{name}.{kind}" for name in ALL_TASKS_FIGURES for kind in ("png", "pdf", "csv")
    ]


def task_targets():
    """Return the collected tables, and the figures of each task and of all together."""
    if not ASKED_TASKS:
        return []
    return [
        *(path for task in ASKED_TASKS for path in set_figures(task, task_figures(task))),
        *(f"{RESULTS}/tasks/{name}.csv" for name in ("all", "best")),
        *(
            f"{RESULTS}/tasks/sets/{chosen}/{name}.png"
            for chosen in model_sets()
            for name in ALL_TASKS_FIGURES
        ),
    ]


TARGETS.append(task_targets)
