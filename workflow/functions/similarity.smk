# Settings, targets and needs of similarity of models by several measures, with confidence intervals, from the Gram matrices of CKA.


def similarity_tables(ids=None):
    """Return the tables of all pairs, of all models if not told which."""
    settings = CONFIG.analyses.get("similarity")
    if settings is None:
        return []
    ids = ids or [m.id for m in CONFIG.models]
    folder = CONFIG.results / "similarity"
    tables = cka_tables(folder, settings.datasets, settings.tokens, ids)
    return [table.path.as_posix() for some in tables.values() for table in some]


def similarity_figures():
    """Return the names of figures: those of CKA where it is among the measures."""
    settings = CONFIG.analyses.get("similarity")
    if settings is None or "cka" not in settings.measures:
        return ("all",)
    return ("all", "trees", "maps", "intervals")


def similarity_targets():
    """Return the figures: of all models, and of each set."""
    if CONFIG.analyses.get("similarity") is None:
        return []
    sets = [f"{RESULTS}/similarity/sets/{chosen}" for chosen in CONFIG.sets]
    folders = [f"{RESULTS}/similarity", *sets]
    return [f"{folder}/{name}.png" for folder in folders for name in similarity_figures()]


TARGETS.append(similarity_targets)


def similarity_settings():
    """Return the settings of a pair, as far as the measures that are asked for use them."""
    settings = CONFIG.analyses.get("similarity")
    if settings is None:
        return {}
    some = settings.resamples > 0
    return {
        "measures": settings.measures,
        "layers": settings.layers,
        "neighbours": settings.neighbours if "mutual_knn" in settings.measures else None,
        "variance": settings.variance if "svcca" in settings.measures else None,
        "images": settings.images,
        "resamples": settings.resamples,
        "confidence": settings.confidence if some else None,
        "seed": settings.seed if some else None,
    }


def compared_layers(wildcards):
    """Return how many layers of each of two models are compared."""
    if CONFIG.analyses.get("similarity").layers == "last":
        return 1, 1
    models = (CONFIG.model(wildcards.model_a), CONFIG.model(wildcards.model_b))
    return tuple(guess_shape(model).depth for model in models)


def similarity_figure_settings(ids=None):
    """Return the settings of the figures; the tables' content comes from their jobs."""
    settings = CONFIG.analyses.get("similarity")
    if settings is None:
        return {}
    return {
        "datasets": settings.datasets,
        "tokens": settings.tokens,
        "models": shown_models(ids),
    }
