# Settings, targets and needs: objects followed through videos.
from vitfeat.plan.task_needs import video_memory_mb, video_minutes


def video_tables():
    """Return the table of each dataset and model."""
    if CONFIG.analyses.get("video") is None:
        return []
    return [
        f"{RESULTS}/video/{dataset}/{model.id}.csv"
        for dataset in CONFIG.analyses.get("video").datasets
        for model in CONFIG.models
    ]


TARGETS.append(video_tables)


def video_settings():
    """Return how objects are followed, and of which layers masks are written."""
    settings = CONFIG.analyses.get("video")
    if settings is None:
        return {}
    keys = ("context", "neighbourhood", "top", "temperature", "normalise", "objects")
    return {
        **{key: getattr(settings, key) for key in keys},
        "masks": None if settings.masks == "none" else settings.masks,
    }


def video_tokens(wildcards):
    """Return about how many tokens a frame has: frames are as wide as DAVIS's, 16 to 9."""
    shape = guess_shape(CONFIG.model(wildcards.model))
    view = CONFIG.view(wildcards.dataset)
    if view.kind != "dense":
        return shape.tokens
    side, pixels = view.side
    short = pixels if side == "short" else pixels * 9 // 16
    rows = max(1, short // shape.patch)
    return rows * max(1, short * 16 // 9 // shape.patch)


def video_memory(wildcards, threads):
    width = guess_shape(CONFIG.model(wildcards.model)).width
    return video_memory_mb(
        width, video_tokens(wildcards), CONFIG.analyses.get("video").context, threads
    )


def video_runtime(wildcards, threads):
    return video_minutes(
        guess_shape(CONFIG.model(wildcards.model)),
        video_tokens(wildcards),
        dataset_size(wildcards.dataset),
        CONFIG.analyses.get("video").context,
        threads,
    )
