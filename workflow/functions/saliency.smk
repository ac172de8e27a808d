# Settings, targets and needs: the most attended tokens against annotated masks.
from vitfeat.plan.task_needs import (saliency_memory_mb, saliency_minutes)


def saliency_targets():
    """Return the table and the figure of each dataset and model."""
    if CONFIG.analyses.get("saliency") is None:
        return []
    stems = [
        f"{RESULTS}/saliency/{dataset}/{model.id}"
        for dataset in CONFIG.analyses.get("saliency").datasets
        for model in CONFIG.models
    ]
    return [path for stem in stems for path in (f"{stem}.csv", f"{stem}/masks.png")]


TARGETS.append(saliency_targets)


def saliency_settings():
    """Return what is compared with the masks."""
    settings = CONFIG.analyses.get("saliency")
    if settings is None:
        return {}
    return {key: getattr(settings, key) for key in ("queries", "mass", "masks")}


def saliency_mask_settings():
    """Return what the figure shows."""
    settings = CONFIG.analyses.get("saliency")
    if settings is None:
        return {}
    listed = not isinstance(settings.images, int)
    return {**saliency_settings(), "ids" if listed else "images": settings.images}


def saliency_memory(wildcards):
    return saliency_memory_mb(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        n_regions(wildcards.dataset),
    )


def saliency_runtime(wildcards):
    return saliency_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        dataset_size(wildcards.dataset),
        n_regions(wildcards.dataset),
        len(CONFIG.analyses.get("saliency").queries),
    )
