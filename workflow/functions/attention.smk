# Settings, targets and needs of attention metrics and maps averaged over images, from the summaries.


def attention_tables():
    """Return the table of each dataset and model; its maps stand beside it."""
    if CONFIG.analyses.get("attention") is None:
        return []
    return [
        f"{RESULTS}/attention/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get("attention").datasets
        for model in CONFIG.models
    ]


def attention_targets():
    """Return what is made of attention: tables, maps and figures."""
    return attention_tables()


TARGETS.append(attention_targets)


def attention_settings():
    """Return the settings of the tables and maps."""
    settings = CONFIG.analyses.get("attention")
    if settings is None:
        return {}
    keys = ("null_rows", "offset_null_rows", "by_class", "high_norm")
    return {key: getattr(settings, key) for key in keys}


# Figures of one model, and across models.
ATTENTION_SET_FIGURES = ("by_layer", "families", "breakout", "averages")


def attention_set_targets():
    """Return the figures across models."""
    return set_figures("attention", ATTENTION_SET_FIGURES)


TARGETS.append(attention_set_targets)


def attention_model_figures():
    """Return the figures of one model, by name."""
    settings = CONFIG.analyses.get("attention")
    if settings is None:
        return []
    always = ("by_layer", "heads_sorted", "heads", "metrics", "aligned")
    maps = ("token_maps", "token_maps_common")
    return [*always, *maps, *(["token_map_classes"] if draws_classes() else [])]


def draws_classes():
    """Say whether classes are compared: where some dataset may have them."""
    settings = CONFIG.analyses.get("attention")
    return settings.by_class and any(
        CONFIG.datasets[name].layout not in UNLABELLED for name in settings.datasets
    )


def attention_model_targets():
    """Return the figures of each model."""
    if CONFIG.analyses.get("attention") is None:
        return []
    return [
        f"{RESULTS}/attention/{dataset}/{model.id}/{name}.png"
        for dataset in CONFIG.analyses.get("attention").datasets
        for model in CONFIG.models
        for name in attention_model_figures()
    ]


TARGETS.append(attention_model_targets)
