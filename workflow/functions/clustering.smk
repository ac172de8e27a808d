# Settings, targets and needs of k-means of features against classes.


def clustering_tables():
    """Return the table of each dataset and model."""
    if CONFIG.analyses.get("clustering") is None:
        return []
    return [
        f"{RESULTS}/clustering/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get("clustering").datasets
        for model in CONFIG.models
    ]


TARGETS.append(clustering_tables)


def clustering_settings():
    """Return the settings of the tables; layers of patterns only where patterns are clustered."""
    settings = CONFIG.analyses.get("clustering")
    if settings is None:
        return {}
    keys = ("features", "clusters", "n_init", "seeds", "seed", "shuffled")
    patterns = "attention_mean" in settings.features
    return {
        **{key: getattr(settings, key) for key in keys},
        "pattern_layers": settings.pattern_layers if patterns else None,
    }


def clustering_memory(wildcards, threads):
    return clustering_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        CONFIG.analyses.get("clustering").features,
        threads,
    )


def clustering_runtime(wildcards, threads):
    settings = CONFIG.analyses.get("clustering")
    return clustering_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        settings.features,
        settings.clusters,
        settings.seeds * settings.n_init,
        threads,
    )


# Figures across models.
CLUSTERING_SET_FIGURES = ("by_layer", "families", "best")


def clustering_set_targets():
    """Return the figures across models."""
    return set_figures("clustering", CLUSTERING_SET_FIGURES)


TARGETS.append(clustering_set_targets)
