# Settings, targets and needs: classes by the votes of nearest training images; and what the linear
# probe shares with them.
from vitfeat.models.layers import select_layers
from vitfeat.plan.task_needs import knn_memory_mb, knn_minutes


def classified_tables(task):
    """Return the table of each dataset and model."""
    settings = CONFIG.analyses.get(task)
    if settings is None:
        return []
    return [
        f"{RESULTS}/{task}/{dataset}/{model.id}.csv"
        for dataset in settings.datasets
        for model in CONFIG.models
    ]


def layer_jobs(task):
    """Return whether every layer is a job of its own."""
    settings = CONFIG.analyses.get(task)
    return settings is not None and settings.layer_jobs


def train_store(task, wildcards, kind="zarr"):
    """Return the store that a dataset is classified from; `json` is its manifest."""
    dataset = CONFIG.analyses.get(task).train[wildcards.dataset]
    path = f"{RESULTS}/features/{dataset}/{wildcards.model}.{kind}"
    return in_storage(path) if kind == "zarr" else path


def train_transient(task, wildcards):
    """Return the folder of the arrays that go after use, of the store that is learnt from."""
    return [train_store(task, wildcards, "transient")] if transient(task) else []


def layer_tables(task, wildcards):
    """Return the tables of single layers; the number of layers is guessed from the model's name."""
    depth = guess_shape(CONFIG.model(wildcards.model)).depth
    folder = f"{RESULTS}/{task}/{wildcards.dataset}/{wildcards.model}"
    chosen = select_layers(depth, CONFIG.extraction["layers"])
    return [f"{folder}/layer-{layer}.csv" for layer in chosen]


def knn_tables():
    return classified_tables("knn")


TARGETS.append(knn_tables)


def knn_settings():
    settings = CONFIG.analyses.get("knn")
    if settings is None:
        return {}
    return {
        key: getattr(settings, key)
        for key in ("features", "final_norm", "neighbours", "temperature")
    }


def knn_memory(wildcards, threads):
    settings = CONFIG.analyses.get("knn")
    return knn_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        max(settings.neighbours),
        threads,
    )


def knn_runtime(wildcards, threads):
    settings = CONFIG.analyses.get("knn")
    return knn_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        dataset_size(settings.train[wildcards.dataset]),
        settings.features,
        settings.layer_jobs,
        threads,
    )
