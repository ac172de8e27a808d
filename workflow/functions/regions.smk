# Settings, targets and needs: annotated regions: k-means of their features.
from vitfeat.plan.task_needs import regions_memory_mb, regions_minutes


def regions_tables():
    """Return the table of each dataset and model."""
    if CONFIG.analyses.get("regions") is None:
        return []
    return [
        f"{RESULTS}/regions/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get("regions").datasets
        for model in CONFIG.models
    ]


TARGETS.append(regions_tables)


def regions_settings():
    """Return how regions are clustered; how masks weigh tokens is of the extraction."""
    settings = CONFIG.analyses.get("regions")
    if settings is None:
        return {}
    return {key: getattr(settings, key) for key in ("clusters", "n_init", "seeds", "seed")}


def n_regions(dataset):
    """Return how many regions a dataset has; a guess before their table is written."""
    return n_images(f"{RESULTS}/datasets/regions/{dataset}.csv")


def regions_memory(wildcards, threads):
    shape = guess_shape(CONFIG.model(wildcards.model))
    return regions_memory_mb(shape, n_regions(wildcards.dataset), threads)


def regions_runtime(wildcards, threads):
    settings = CONFIG.analyses.get("regions")
    return regions_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        n_regions(wildcards.dataset),
        settings.clusters,
        settings.seeds * settings.n_init,
        threads,
    )
