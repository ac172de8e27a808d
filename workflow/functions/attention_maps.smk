# Settings, targets and needs of attention maps of chosen images, over the image that the model saw.


MAP_KINDS = ("position_layer", "head_position", "head_layer")


def attention_map_targets():
    """Return the folders of figures of every model, one of each kind, with a figure an image."""
    settings = CONFIG.analyses.get("attention_maps")
    if settings is None:
        return []
    return [
        f"{RESULTS}/attention_maps/{dataset}/{model.id}/{kind}"
        for dataset in settings.datasets
        for model in CONFIG.models
        for kind in MAP_KINDS
    ]


TARGETS.append(attention_map_targets)


def map_settings():
    """Return which maps are drawn and how."""
    settings = CONFIG.analyses.get("attention_maps")
    if settings is None:
        return {}
    keys = ("positions", "layers", "layer", "head", "renormalised")
    keys += ("scale", "percentile", "smooth", "single_maps")
    return {**map_images(), **{key: getattr(settings, key) for key in keys}}


def map_images():
    """Return the images that are shown: how many, or which."""
    settings = CONFIG.analyses.get("attention_maps")
    if settings is None:
        return {}
    return {"images" if isinstance(settings.images, int) else "ids": settings.images}


def map_memory(wildcards):
    """Return MiB for the pass of the images that are shown, and then for their figures."""
    images = CONFIG.analyses.get("attention_maps").images
    return extraction_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        CONFIG.extraction["batch_size"],
        ["attention"],
        CONFIG.extraction["dtype"],
        n_images=images if isinstance(images, int) else len(images),
    )


def map_folders():
    """Return the folders of one model's figures: which images they are of, the index tells."""
    folder = f"{RESULTS}/attention_maps/{{dataset}}/{{model}}"
    return [update(directory(f"{folder}/{kind}")) for kind in MAP_KINDS]
