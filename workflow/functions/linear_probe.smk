# Settings, targets and needs: logistic regression on the features of every layer.
from vitfeat.plan.task_needs import linear_probe_memory_mb, linear_probe_minutes


def linear_probe_tables():
    return classified_tables("linear_probe")


TARGETS.append(linear_probe_tables)


def linear_probe_settings():
    settings = CONFIG.analyses.get("linear_probe")
    if settings is None:
        return {}
    keys = ("features", "final_norm", "regularisation")
    # With a single penalty no part of the images is set aside.
    choice = ("validation", "seed") if len(settings.regularisation) > 1 else ()
    return {key: getattr(settings, key) for key in (*keys, *choice)}


def linear_probe_memory(wildcards, threads):
    settings = CONFIG.analyses.get("linear_probe")
    return linear_probe_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        dataset_size(settings.train[wildcards.dataset]),
        threads,
    )


def linear_probe_runtime(wildcards, threads):
    settings = CONFIG.analyses.get("linear_probe")
    return linear_probe_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(settings.train[wildcards.dataset]),
        settings.features,
        len(settings.regularisation),
        settings.layer_jobs,
        threads,
    )
