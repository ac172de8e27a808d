# Settings, targets and needs: retrieval of images of the same landmark.
from vitfeat.plan.task_needs import retrieval_memory_mb, retrieval_minutes


def retrieval_targets():
    """Return the table and the figure of each dataset and model."""
    if CONFIG.analyses.get("retrieval") is None:
        return []
    stems = [
        f"{RESULTS}/retrieval/{dataset}/{model.id}"
        for dataset in CONFIG.analyses.get("retrieval").datasets
        for model in CONFIG.models
    ]
    return [path for stem in stems for path in (f"{stem}.csv", f"{stem}/ranking.png")]


TARGETS.append(retrieval_targets)


def retrieval_settings(*keys):
    settings = CONFIG.analyses.get("retrieval")
    return {} if settings is None else {key: getattr(settings, key) for key in keys}


def ranking_settings():
    """Return what the figure shows: the first of the descriptors."""
    settings = retrieval_settings("features", "final_norm")
    return settings | {"features": settings["features"][0]} if settings else {}


def retrieval_memory(wildcards):
    return retrieval_memory_mb(dataset_size(wildcards.dataset))


def retrieval_runtime(wildcards):
    return retrieval_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        enlarged(wildcards),
        dataset_size(wildcards.dataset),
        CONFIG.analyses.get("retrieval").features,
    )
